#!/usr/bin/env python3
"""Fetch the files of a corpus: resumed where it was interrupted, recorded by size and checksum, checked ever after.

This calls ``fairseq-adv corpus fetch``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "fetch", *sys.argv[1:]]))
