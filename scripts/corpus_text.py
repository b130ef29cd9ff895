#!/usr/bin/env python3
"""Parallel plain text, one sentence a line, out of the formats in which translation corpora are published.

What this calls is ``fairseq_adv.corpora.parallel_text``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.corpora.parallel_text import main

if __name__ == "__main__":
    sys.exit(main())
