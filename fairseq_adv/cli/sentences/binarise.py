"""``fairseq-adv sentences binarise``: a set of sentences as fairseq reads it, in the tokens of an encoder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fairseq_adv.corpora.sentences.labelled import read_facts, read_subset
from fairseq_adv.whole_files import refuse_existing, whole_folder

HELP = "binarise a set of sentences in the tokens of a converted encoder"
EXAMPLE = "fairseq-adv sentences binarise work/movie/raw --encoder work/minilm --output work/movie/bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder of fairseq-adv sentences fetch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--encoder", type=Path, required=True, metavar="DIR", help="folder of fairseq-adv convert-bert")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="BIN", help="folder to write; it must not be there"
    )


def run(args: argparse.Namespace) -> int:
    import fairseq_adv

    fairseq_adv.register()
    from fairseq_adv.encoders.binarise import binarise

    refuse_existing(args.output)
    facts = read_facts(args.raw)
    subsets = {name: read_subset(args.raw, name) for name in facts["rows"]}  # type: ignore[attr-defined]
    with whole_folder(args.output) as folder:
        cut = binarise(subsets, facts, args.encoder, folder)
    if args.json:
        facts = {"output": str(args.output), "rows": {name: len(subsets[name]) for name in subsets}, "cut": cut}
        print(json.dumps(facts, indent=2))
        return 0
    rows = ", ".join(f"{name} {len(subsets[name])}" + (f" ({cut[name]} cut)" if cut[name] else "") for name in subsets)
    print(f"wrote {args.output}: {rows}")
    return 0
