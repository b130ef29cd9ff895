"""``fairseq-adv sentences fetch``: a set of labelled sentences, cut into training, validation and test."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fairseq_adv.corpora.sentences.labelled import write_set
from fairseq_adv.corpora.sentences.sets import SETS
from fairseq_adv.whole_files import refuse_existing

HELP = "fetch a set of labelled sentences or pairs and cut it into sets that share no text"
EXAMPLE = "fairseq-adv sentences fetch movie --output work/movie/raw"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=list(SETS), metavar="NAME", help=", ".join(SETS))
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder to write; it must not be there"
    )
    parser.add_argument(
        "--download", type=Path, metavar="DIR", help="where downloads are kept (DIR of --output/../download)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--mirror", metavar="DIR_OR_URL", help="take the files, by their own names, from there")
    parser.add_argument("--train-rows", type=int, metavar="N", help="keep a sample of N training examples only (all)")


def run(args: argparse.Namespace) -> int:
    refuse_existing(args.output)
    download = args.download or args.output.parent / "download"
    facts = write_set(SETS[args.name](download, args.mirror), args.output, args.train_rows)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    rows = facts["rows"]
    assert isinstance(rows, dict)
    print(f"{args.name}: " + ", ".join(f"{subset} {count}" for subset, count in rows.items()))
    for note in facts["notes"]:  # type: ignore[attr-defined]
        print(f"  {note}")
    return 0
