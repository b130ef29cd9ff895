#!/usr/bin/env python3
"""Score what ``fairseq-generate`` printed: BLEU and chrF on plain text, and the tokenised BLEU of papers.

What this calls is ``fairseq_adv.scoring.bleu``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.scoring.bleu import main

if __name__ == "__main__":
    sys.exit(main())
