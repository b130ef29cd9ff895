#!/usr/bin/env python3
"""Train and score variants × seeds × corpora, several at a time, and compare them.

This calls ``fairseq-adv grid``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["grid", *sys.argv[1:]]))
