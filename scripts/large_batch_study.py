#!/usr/bin/env python3
"""Methods at growing batches in target tokens: does a larger batch cost quality, and what wins it back?

This calls ``fairseq-adv study large-batch``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["study", "large-batch", *sys.argv[1:]]))
