#!/usr/bin/env python3
"""Are two systems different? Paired bootstrap over sentences, mean and deviation over seeds.

What this calls is ``fairseq_adv.scoring.significance``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.scoring.significance import main

if __name__ == "__main__":
    sys.exit(main())
