"""``fairseq-adv corpus fetch``: the files of a corpus, resumed, recorded and checked."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fairseq_adv.corpora.fetching import fetch, named_addresses

HELP = (
    "fetch the files of a corpus; goes on where it was interrupted, records size and SHA-256 in checksums.json and "
    "refuses a file that has changed since"
)
EXAMPLE = """\
fairseq-adv corpus fetch --output download de-en.tgz=https://example.org/de-en.tgz
fairseq-adv corpus fetch --output download --mirror /data/iwslt14 de-en.tgz=https://example.org/de-en.tgz"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="NAME=URL", help="file to fetch; the same NAME again: another URL")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files and checksums.json")
    parser.add_argument("--mirror", help="folder, or address that ends before the name, with files of the same names")
    parser.add_argument("--json", action="store_true", help="print a JSON list of the files instead of one a line")


def run(args: argparse.Namespace) -> int:
    choices = named_addresses(args.files)
    args.output.mkdir(parents=True, exist_ok=True)
    paths = [str(fetch(name, urls, args.output, args.mirror)) for name, urls in choices.items()]
    print(json.dumps(paths) if args.json else "\n".join(paths))
    return 0
