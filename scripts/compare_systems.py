#!/usr/bin/env python3
"""Are two systems different? Paired bootstrap over sentences, mean and deviation over seeds.

This calls ``fairseq-adv compare``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
