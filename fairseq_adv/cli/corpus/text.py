"""``fairseq-adv corpus text``: plain parallel text out of the formats in which corpora are published."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Dict, List

from fairseq_adv.corpora.parallel_text import write_sets

HELP = "parallel plain text, one sentence a line, out of WIT3's, XML, SGML and plain files; the names tell the format"
EXAMPLE = """\
fairseq-adv corpus text orig --languages de en --output plain \\
  --set 'train=de-en/train.tags.de-en.{lang}' \\
  --set 'test=de-en/IWSLT14.TED.dev2010.de-en.{lang}.xml' --set 'test=de-en/IWSLT14.TED.tst2010.de-en.{lang}.xml'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="folder that the paths of the sets start from")
    add("--languages", nargs=2, required=True, metavar="LANG")
    add("--set", action="append", required=True, metavar="NAME=PATH", help="one file a language; {lang} stands for it")
    add("--output", type=Path, required=True, help="folder to make, with NAME.LANG")
    add("--plain-apostrophes", action="store_true", help="’ becomes ' in XML and SGML sets")
    add("--json", action="store_true", help="print the numbers of pairs as a JSON object")


def run(args: argparse.Namespace) -> int:
    sets: Dict[str, List[str]] = {}
    for choice in args.set:
        if not re.fullmatch(r"\w+=.*\{lang\}.*", choice):
            raise ValueError(f"--set must look like NAME=PATH with {{lang}} in PATH, got {choice!r}")
        name, _, pattern = choice.partition("=")
        sets.setdefault(name, []).append(pattern)
    counts = write_sets(args.folder, sets, args.languages, args.output, args.plain_apostrophes)
    print(json.dumps(counts) if args.json else "\n".join(f"{name}: {count} pairs" for name, count in counts.items()))
    return 0
