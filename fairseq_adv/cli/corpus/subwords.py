"""``fairseq-adv corpus subwords``: byte-pair encoding, learnt on both sides together."""

from __future__ import annotations

import argparse
from pathlib import Path

from fairseq_adv.corpora.subwords import KINDS, encode_folder

HELP = "learn byte-pair encoding on both sides of the training set together and apply it to {train,valid,test}.LANG"
EXAMPLE = "fairseq-adv corpus subwords text --languages de en --output bpe --kind sentencepiece --vocabulary 10000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of {train,valid,test}.LANG")
    parser.add_argument("--languages", nargs=2, required=True, metavar="LANG")
    parser.add_argument("--output", type=Path, required=True, help="folder to make, with the same names and the model")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help=f"(default: {KINDS[0]})")
    parser.add_argument("--vocabulary", type=int, default=10000, help="pieces or merges (default: 10000)")


def run(args: argparse.Namespace) -> int:
    encode_folder(args.folder, args.output, args.languages, args.kind, args.vocabulary)
    return 0
