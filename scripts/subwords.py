#!/usr/bin/env python3
"""Learn byte-pair encoding on both sides of the training set together and apply it to all sets.

This calls ``fairseq-adv corpus subwords``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "subwords", *sys.argv[1:]]))
