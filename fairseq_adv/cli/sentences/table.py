"""``fairseq-adv sentences table``: scored trainings of a set side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from fairseq_adv.experiments.sentence_results import publish, read_run

HELP = "compare scored trainings: mean and deviation over seeds, difference to plain, CPU time relative to it"
EXAMPLE = "fairseq-adv sentences table work/movie/minilm/runs/*-seed* --output work/movie/minilm/results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders that sentences evaluate scored")
    parser.add_argument("--output", type=Path, required=True, metavar="NAME", help="writes NAME.md and NAME.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--untrained", type=Path, metavar="FILE", help="file of sentences baselines")
    parser.add_argument("--baseline", default="plain", help="method that the others are compared with (plain)")


def run(args: argparse.Namespace) -> int:
    table = publish([read_run(folder) for folder in args.runs], args.output, args.untrained, args.baseline)
    written = args.output.with_name(args.output.name + ".json")
    print(written.read_text(encoding="utf-8") if args.json else table, end="")
    return 0
