#!/usr/bin/env python3
"""Extract named files from an archive of unknown origin, all of them or none.

What this calls is ``fairseq_adv.corpora.archives``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.corpora.archives import main

if __name__ == "__main__":
    sys.exit(main())
