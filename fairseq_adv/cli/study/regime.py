"""``fairseq-adv study regime``: on which texts and with which models does a regulariser pay?"""

from __future__ import annotations

import argparse

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.experiments.regime import RegimeStudy, run_study

HELP = (
    "plain training against methods of equal cost over texts and sizes of the model; the same command goes on after an "
    "interruption, and OUTPUT gets regime.md, regime.json and regime.png"
)
EXAMPLE = """\
for pairs in 500 2000; do bash scripts/quickstart.sh --pairs $pairs --prepare-only; done
fairseq-adv study regime work/en-de-500 work/en-de-2000 --sizes 2x64 2x128 --jobs 2"""
REST = "options of fairseq-train for every run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, RegimeStudy)


def run(args: argparse.Namespace) -> int:
    return run_study(from_arguments(RegimeStudy, args), args.rest or [])
