#!/usr/bin/env python3
"""Fetch the files of a corpus: resumed where it was interrupted, recorded by size and checksum, checked ever after.

What this calls is ``fairseq_adv.corpora.fetching``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.corpora.fetching import main

if __name__ == "__main__":
    sys.exit(main())
