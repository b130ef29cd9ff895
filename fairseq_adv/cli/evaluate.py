"""``fairseq-adv evaluate``: translate and score with a run's checkpoint."""

from __future__ import annotations

import argparse
import json

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.scoring.bleu import as_text
from fairseq_adv.scoring.evaluation import Evaluation, evaluate

HELP = (
    "translate valid and test with a run's best checkpoint and score them; writes RUN/generate-test.out (and "
    "-valid.out to choose the length penalty) and RUN/score.json"
)
EXAMPLE = """\
fairseq-adv evaluate work/en-de/bin runs/arch-seed1 work/en-de/raw
fairseq-adv evaluate bin run raw --checkpoint checkpoint_last.pt --lenpen 0.6 --beam 4 -- --max-len-b 50"""
REST = "more options of fairseq-generate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, Evaluation)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    result = evaluate(from_arguments(Evaluation, args), args.rest)
    print(json.dumps(result) if args.json else as_text(result))
    return 0
