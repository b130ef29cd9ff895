"""``fairseq-adv corpus debian``: package descriptions and their translations."""

from __future__ import annotations

import argparse
from pathlib import Path

from fairseq_adv.corpora import debian
from fairseq_adv.whole_files import refuse_existing

HELP = (
    "sentence pairs of a Debian or Ubuntu archive's package descriptions, as {train,valid,test}.{en,LANG}: fetched by "
    "apt's own client as any user, or from a folder of indexes; prints how many pairs each rule took"
)
EXAMPLE = """\
fairseq-adv corpus debian --language de --output work/debian-de
fairseq-adv corpus debian --language it --output work/debian-it --translations work/indexes"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--language", required=True, metavar="LANG", help="of the translations, such as de, fr, it, es, ja, pt_BR")
    add("--output", type=Path, required=True, help="folder to make, with {train,valid,test}.{en,LANG}")
    add("--translations", type=Path, metavar="DIR", help="folder of an archive's indexes: nothing is fetched")
    add("--download", type=Path, help="folder that the fetched indexes are kept in (default: OUTPUT-indexes)")
    add("--pairs", type=int, default=0, help="pairs to train on, at most (default: 0, all)")
    add("--valid", type=int, default=2000, help="pairs to validate on (default: 2000)")
    add("--test", type=int, default=2000, help="pairs to test on (default: 2000)")
    add("--seed", type=int, default=1, help="of the split (default: 1)")


def run(args: argparse.Namespace) -> int:
    refuse_existing(args.output)
    for option in ("valid", "test"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
    if args.pairs < 0:
        raise ValueError(f"--pairs must be at least 0 (0 means all), got {args.pairs}")
    request = debian.Request(args.language, args.valid, args.test, args.seed, args.pairs)
    download = args.download or args.output.with_name(args.output.name + "-indexes")
    folder = args.translations or debian.indexes(args.language, download)
    print(*debian.corpus(folder, request, args.output), sep="\n")
    return 0
