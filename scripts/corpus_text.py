#!/usr/bin/env python3
"""Parallel plain text, one sentence a line, out of the formats in which translation corpora are published.

This calls ``fairseq-adv corpus text``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "text", *sys.argv[1:]]))
