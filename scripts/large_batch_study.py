#!/usr/bin/env python3
"""Train, score and compare methods at growing batches counted in target tokens; ``large_batch_study.sh`` calls this.

What this calls is ``fairseq_adv.experiments.large_batch``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.experiments.large_batch import main

if __name__ == "__main__":
    sys.exit(main())
