#!/usr/bin/env python3
"""How large should a perturbation be, when should it start, and how much of the gain is dropout?

What this calls is ``fairseq_adv.experiments.eps_sweep``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.experiments.eps_sweep import main

if __name__ == "__main__":
    sys.exit(main())
