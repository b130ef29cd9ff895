#!/usr/bin/env python3
"""Real parallel text out of a package: the user-interface translations of Home Assistant.

This calls ``fairseq-adv corpus home-assistant``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["corpus", "home-assistant", *sys.argv[1:]]))
