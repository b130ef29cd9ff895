#!/usr/bin/env python3
"""Moses tokenisation of parallel text by sacremoses, or its reverse.

What this calls is ``fairseq_adv.corpora.moses``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.corpora.moses import main

if __name__ == "__main__":
    sys.exit(main())
