"""``fairseq-adv study sentences``: which method helps on sentences, by how much, and what it costs."""

from __future__ import annotations

import argparse

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.experiments.sentence_study import SentenceStudy, run_study

HELP = (
    "plain fine-tuning against methods whose strength is chosen on the validation set, over seeds; the same command "
    "goes on after an interruption, and study.md and study.json are written beside the runs"
)
EXAMPLE = """\
fairseq-adv study sentences "examples/sentence_prediction/movie.sh --layers 3" --seeds 1 2 3 --jobs 2"""
REST = "options of fairseq-train for every run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, SentenceStudy)


def run(args: argparse.Namespace) -> int:
    return run_study(from_arguments(SentenceStudy, args), args.rest or [])
