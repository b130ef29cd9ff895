#!/usr/bin/env python3
"""Train and score variants × seeds × corpora, several at a time, and compare them.

What this calls is ``fairseq_adv.experiments.grid``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.experiments.grid import main

if __name__ == "__main__":
    sys.exit(main())
