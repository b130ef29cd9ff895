"""``fairseq-adv corpus clean``: training pairs of reasonable length, and a validation set set aside."""

from __future__ import annotations

import argparse
import json

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.corpora.cleaning import Cleaning, clean

HELP = "drop training pairs that are too short, too long or too unequal, and set a validation set aside"
EXAMPLE = (
    "fairseq-adv corpus clean tokenized --plain plain --languages de en --output text --ratio 1.5 --valid-every 23"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, Cleaning)
    parser.add_argument("--json", action="store_true", help="print the numbers of pairs as a JSON object")


def run(args: argparse.Namespace) -> int:
    counts = clean(from_arguments(Cleaning, args))
    dropped = counts["dropped"]
    kept = ", ".join(f"{name} {count}" for name, count in counts.items() if name != "dropped")
    print(json.dumps(counts) if args.json else f"{kept} pairs; {dropped} dropped")
    return 0
