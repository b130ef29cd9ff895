#!/usr/bin/env python3
"""Drop training pairs that are too short, too long or too unequal, and set a validation set aside.

This calls ``fairseq-adv corpus clean``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "clean", *sys.argv[1:]]))
