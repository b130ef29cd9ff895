"""``fairseq-adv study large-batch-sentences``: time to a small batch's accuracy when the batch grows."""

from __future__ import annotations

import argparse

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.experiments.large_batch_sentences import LargeBatchSentences, run_study

HELP = (
    "methods on sentences at growing batches, each at its own rate of a small grid: updates and seconds until plain "
    "training's accuracy at the smallest batch; the same command goes on after an interruption"
)
EXAMPLE = """\
fairseq-adv study large-batch-sentences "examples/sentence_prediction/movie.sh --layers 3" \\
    --batches 32 256 1024 --seeds 1 2 3 --jobs 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, LargeBatchSentences)


def run(args: argparse.Namespace) -> int:
    return run_study(from_arguments(LargeBatchSentences, args))
