"""``fairseq-adv sweep``: how large a perturbation, from which update on, with which dropout masks."""

from __future__ import annotations

import argparse

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.experiments.eps_sweep import EpsSweep, run_sweep

HELP = (
    "train ARCH over radius, start and dropout masks, and plain once; the same command goes on after an interruption, "
    "and WORK_DIR/sweep-epochsN/ gets sweep.md and sweep.json"
)
EXAMPLE = """\
bash scripts/quickstart.sh --pairs 2500 --prepare-only
fairseq-adv sweep --work-dir work/en-de-2500 --epochs 40 --jobs 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, EpsSweep)


def run(args: argparse.Namespace) -> int:
    return run_sweep(from_arguments(EpsSweep, args))
