#!/usr/bin/env python3
"""Average the parameters of fairseq checkpoints into one, as papers do before they score.

This calls ``fairseq-adv average``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["average", *sys.argv[1:]]))
