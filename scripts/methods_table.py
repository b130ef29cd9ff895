#!/usr/bin/env python3
"""The table of methods in ``docs/methods.md``: names, objectives and options from the code, the rest from here.

What this calls is ``fairseq_adv.cli.methods_table``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.cli.methods_table import main

if __name__ == "__main__":
    sys.exit(main())
