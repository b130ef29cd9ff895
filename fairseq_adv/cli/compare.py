"""``fairseq-adv compare``: paired bootstrap over sentences, mean and deviation over seeds."""

from __future__ import annotations

import argparse
import json

from fairseq_adv.scoring.significance import check_comparable, format_rows, read_system, summary

HELP = "compare scored runs with a baseline: mean and deviation over seeds, paired bootstrap over sentences"
EXAMPLE = "fairseq-adv compare runs/plain-seed1 runs/plain-seed2 runs/arch-seed1 runs/arch-seed2 --baseline plain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="scored run folder, or NAME=FOLDER")
    parser.add_argument("--baseline", help="method to compare with (default: that of the first run)")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap resamples (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    if args.samples < 1:
        raise ValueError(f"--samples must be at least 1, got {args.samples}")
    systems = [read_system(argument) for argument in args.runs]
    check_comparable(systems)
    baseline = args.baseline or systems[0].method
    rows = summary(systems, baseline, args.samples)
    print(json.dumps({"baseline": baseline, "systems": rows}) if args.json else format_rows(rows, baseline))
    return 0
