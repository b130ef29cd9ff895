#!/usr/bin/env python3
"""Extract named files from an archive of unknown origin, all of them or none.

This calls ``fairseq-adv corpus unpack``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "unpack", *sys.argv[1:]]))
