"""``fairseq-adv corpus unpack``: named files out of an archive of unknown origin."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fairseq_adv.corpora.archives import unpack

HELP = "extract named files from a tar or zip archive, safely, all of them or none"
EXAMPLE = "fairseq-adv corpus unpack de-en.tgz --output orig 'de-en/train.tags.de-en.*' 'de-en/IWSLT14.TED.*.xml'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path)
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="paths to extract; * and ? as in a shell")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--json", action="store_true", help="print a JSON list of the extracted paths")


def run(args: argparse.Namespace) -> int:
    names = unpack(args.archive, args.output, args.patterns)
    if args.json:
        print(json.dumps(names))
    return 0
