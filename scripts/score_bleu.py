#!/usr/bin/env python3
"""Score what ``fairseq-generate`` printed: BLEU and chrF on plain text, and the tokenised BLEU of papers.

This calls ``fairseq-adv score``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
