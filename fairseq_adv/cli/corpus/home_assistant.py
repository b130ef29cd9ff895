"""``fairseq-adv corpus home-assistant``: parallel text out of a wheel's translations."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fairseq_adv.corpora.home_assistant import build_corpus, write_corpus

HELP = "parallel text in some thirty languages out of the user-interface translations in a homeassistant wheel"
EXAMPLE = """\
python -m pip download --no-deps --ignore-requires-python homeassistant==2024.3.3
fairseq-adv corpus home-assistant homeassistant-2024.3.3-*.whl --pair en-de --pairs 2500 --output raw"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("wheel", type=Path, help="homeassistant-*.whl")
    parser.add_argument("--pair", default="en-de", help="source-target, as the JSON files name them (default: en-de)")
    parser.add_argument("--pairs", type=int, default=2500, help="sentence pairs for training (default: 2500)")
    parser.add_argument("--held-out", type=int, default=300, help="pairs each for valid and test (default: 300)")
    parser.add_argument("--test", type=int, default=0, help="pairs for test (default: 0, as many as --held-out)")
    parser.add_argument("--seed", type=int, default=1, help="of the split (default: 1)")
    parser.add_argument("--output", type=Path, required=True, help="folder for {train,valid,test}.LANG and corpus.json")
    parser.add_argument("--json", action="store_true", help="print the numbers of pairs as a JSON object")


def run(args: argparse.Namespace) -> int:
    source, _, target = args.pair.partition("-")
    if not target or source == target:
        raise ValueError(f"--pair must be two languages such as en-de, got {args.pair}")
    if args.pairs < 1 or args.held_out < 1:
        raise ValueError(f"--pairs and --held-out must be at least 1, got {args.pairs} and {args.held_out}")
    if args.test < 0:
        raise ValueError(f"--test must be at least 0 (0: as many as --held-out), got {args.test}")
    corpus = build_corpus(args.wheel, (source, target), args.pairs, args.held_out, args.seed, args.test)
    settings = {"wheel": args.wheel.name, "pair": args.pair, "seed": args.seed}
    write_corpus(corpus, (source, target), args.output, settings)
    counts = {subset: len(pairs) for subset, pairs in corpus.items()}
    told = ", ".join(f"{subset} {count}" for subset, count in counts.items())
    print(json.dumps(counts) if args.json else f"{told} pairs in {args.output}")
    return 0
