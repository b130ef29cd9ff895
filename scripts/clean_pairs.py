#!/usr/bin/env python3
"""Drop training pairs that are too short, too long or too unequal, and set a validation set aside.

What this calls is ``fairseq_adv.corpora.cleaning``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.corpora.cleaning import main

if __name__ == "__main__":
    sys.exit(main())
