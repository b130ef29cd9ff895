"""``fairseq-adv sentences baselines``: what a set gives away without training an encoder."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, Dict

from fairseq_adv.corpora.sentences.labelled import read_facts, read_subset
from fairseq_adv.whole_files import write_text

HELP = "score majority, TF-IDF with a linear model and, for similarities of pairs, the untuned encoder's cosine"
EXAMPLE = "fairseq-adv sentences baselines work/stsb/raw --encoder work/minilm --output work/stsb/baselines.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder of fairseq-adv sentences fetch")
    parser.add_argument(
        "--encoder", type=Path, metavar="DIR", help="folder of fairseq-adv convert-bert, for the cosine"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the scores there as JSON")


def run(args: argparse.Namespace) -> int:
    from fairseq_adv.scoring.untrained import LabelledSet, baselines

    facts: Dict[str, Any] = read_facts(args.raw)
    subsets = {name: read_subset(args.raw, name) for name in facts["rows"]}
    data = LabelledSet(subsets, facts["classes"], facts["metrics"])
    found = baselines(data, list(dict.fromkeys(["valid", *facts["scored"]])), _cosines(args.encoder))
    told = json.dumps({"set": facts["name"], "baselines": found}, indent=2)
    if args.output:
        write_text(args.output, told + "\n")
    if args.json:
        print(told)
        return 0
    for name, scores in found.items():
        for subset, numbers in scores.items():
            print(f"{name} {subset}: " + ", ".join(f"{metric} {100 * value:.2f}" for metric, value in numbers.items()))
    return 0


def _cosines(encoder: Any) -> Any:
    if encoder is None:
        return None
    import fairseq_adv

    fairseq_adv.register()
    from fairseq_adv.encoders.features import cosines

    return partial(cosines, encoder)
