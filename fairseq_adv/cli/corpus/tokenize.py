"""``fairseq-adv corpus tokenize``: Moses tokens of parallel text, or text of tokens."""

from __future__ import annotations

import argparse
from pathlib import Path

from fairseq_adv.corpora.moses import Treatment, treat_folder

HELP = "Moses tokenisation of every file NAME.LANG of a folder, by sacremoses, or its reverse"
EXAMPLE = """\
fairseq-adv corpus tokenize plain --languages de en --output tokenized --lowercase
fairseq-adv corpus tokenize tokenized --languages en vi --output plain --detokenize"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder with NAME.LANG")
    parser.add_argument("--languages", nargs=2, required=True, metavar="LANG")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument("--normalize", action="store_true", help="Moses's normalisation of punctuation first")
    parser.add_argument("--detokenize", action="store_true", help="from tokens to text")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")


def run(args: argparse.Namespace) -> int:
    treatments = [Treatment(name, args.lowercase, args.normalize, args.detokenize) for name in args.languages]
    treat_folder(args.folder, args.output, treatments, args.workers)
    return 0
