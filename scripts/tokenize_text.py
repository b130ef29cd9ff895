#!/usr/bin/env python3
"""Moses tokenisation of parallel text by sacremoses, or its reverse.

This calls ``fairseq-adv corpus tokenize``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "tokenize", *sys.argv[1:]]))
