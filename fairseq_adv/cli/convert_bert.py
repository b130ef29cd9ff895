"""``fairseq-adv convert-bert``: a BERT or RoBERTa of transformers as a checkpoint that fairseq trains from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fairseq_adv.encoders.convert import convert_bert
from fairseq_adv.whole_files import refuse_existing, whole_folder

HELP = "make a fairseq checkpoint, dictionary and options of a BERT or RoBERTa of transformers"
EXAMPLE = """\
fairseq-adv convert-bert hf:bert-base-uncased --output work/bert-base
fairseq-train BIN --finetune-from-model work/bert-base/model.pt $(cat work/bert-base/train-options) …"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="hf:PATH_OR_NAME", help="folder of the model, or its name on the hub")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--layers", type=int, metavar="N", help="take the first N layers only (all)")
    parser.add_argument("--json", action="store_true", help="print what was done as a JSON object")


def run(args: argparse.Namespace) -> int:
    refuse_existing(args.output)
    with whole_folder(args.output) as folder:
        facts = convert_bert(args.source, folder, args.layers)
    words = f"{facts['layers']} layers of width {facts['dim']}, {facts['symbols']} symbols"
    print(json.dumps(facts) if args.json else f"wrote {args.output}: {words}")
    return 0
