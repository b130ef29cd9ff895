#!/usr/bin/env python3
"""Real parallel text out of a package: the user-interface translations of Home Assistant.

What this calls is ``fairseq_adv.corpora.home_assistant``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.corpora.home_assistant import main

if __name__ == "__main__":
    sys.exit(main())
