"""``fairseq-adv grid``: variants × seeds × corpora, trained, scored and compared."""

from __future__ import annotations

import argparse

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.experiments.grid import Grid, run_grid

HELP = (
    "train and score variants x seeds x corpora, several at a time, and compare them; the same command goes on after "
    "an interruption"
)
EXAMPLE = """\
bash scripts/quickstart.sh --pairs 1000 --prepare-only     # again with --seed 2 and 3 for their neighbors
fairseq-adv grid work/en-de-1000 --variants plain r3f arch "arch-eps0=arch --adv-eps 0 --adv-steps 0" \\
  --seeds 1 2 3 --epochs 40 --jobs 2
fairseq-adv grid "examples/translation/iwslt14-de-en.sh --reverse" --variants plain arch --devices 0 1"""
REST = "options of fairseq-train for all runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, Grid)


def run(args: argparse.Namespace) -> int:
    return run_grid(from_arguments(Grid, args), args.rest)
