"""``fairseq-adv user-dir``: the path that fairseq's ``--user-dir`` wants, whatever the current folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "print the path to give to fairseq's --user-dir"
EXAMPLE = 'fairseq-train data-bin --user-dir "$(fairseq-adv user-dir)" --criterion arch_label_smoothed'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the bare path")


def run(args: argparse.Namespace) -> int:
    path = str(Path(__file__).resolve().parent.parent)
    print(json.dumps({"user_dir": path}) if args.json else path)
    return 0
