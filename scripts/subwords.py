#!/usr/bin/env python3
"""Learn byte-pair encoding on both sides of the training set together and apply it to all sets.

What this calls is ``fairseq_adv.corpora.subwords``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.corpora.subwords import main

if __name__ == "__main__":
    sys.exit(main())
