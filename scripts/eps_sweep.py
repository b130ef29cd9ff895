#!/usr/bin/env python3
"""How large should a perturbation be, when should it start, and how much of the gain is dropout?

This calls ``fairseq-adv sweep``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
