"""``fairseq-adv score``: BLEU and chrF of what fairseq-generate printed."""

from __future__ import annotations

import argparse
import json

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.scoring.bleu import Scoring, as_text, score

HELP = "score the output of fairseq-generate: sacreBLEU's BLEU and chrF, and the tokenised BLEU of papers"
EXAMPLE = """\
fairseq-generate ... --gen-subset test --nbest 5 --required-batch-size-multiple 1 >test.out
fairseq-adv score test.out --ref raw/test.de --tune valid.out --tune-ref raw/valid.de --output run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, Scoring)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    result = score(from_arguments(Scoring, args))
    print(json.dumps(result) if args.json else as_text(result))
    return 0
