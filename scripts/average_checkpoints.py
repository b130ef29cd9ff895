#!/usr/bin/env python3
"""Average the parameters of fairseq checkpoints into one, as papers do before they score.

What this calls is ``fairseq_adv.scoring.averaging``; ``--help`` tells its options.
"""

import sys

from fairseq_adv.scoring.averaging import main

if __name__ == "__main__":
    sys.exit(main())
