"""``fairseq-adv reproduce``: one command for each table and figure of the papers."""

from __future__ import annotations

import argparse

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.experiments.reproduce import Reproduction, reproduce

HELP = "train and publish tables and figures of the papers of ARCH and ConAdv; docs/papers.md says which and how"
EXAMPLE = """\
fairseq-adv reproduce LIST
fairseq-adv reproduce arch-fig2a arch-fig2b --corpus work/en-de-1000 --seeds 1 2 3
fairseq-adv reproduce arch-table2 --corpus "examples/translation/iwslt14-de-en.sh" --epochs 150 --devices 0 1 2 3"""
REST = "options of fairseq-train for all runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, Reproduction)


def run(args: argparse.Namespace) -> int:
    return reproduce(from_arguments(Reproduction, args), args.rest)
