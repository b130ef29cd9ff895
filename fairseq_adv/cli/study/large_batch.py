"""``fairseq-adv study large-batch``: does a larger batch cost quality, and what wins it back?"""

from __future__ import annotations

import argparse

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.experiments.large_batch import LargeBatchStudy, run_study

HELP = (
    "methods at growing batches in target tokens, for a fixed number of epochs; the same command goes on after an "
    "interruption, and WORK_DIR/large-batch-epochsN/ gets study.md, study.json and study.png"
)
EXAMPLE = """\
bash scripts/quickstart.sh --pairs 2500 --prepare-only
fairseq-adv study large-batch --work-dir work/en-de-2500 --seeds 1 2 3 --jobs 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, LargeBatchStudy)


def run(args: argparse.Namespace) -> int:
    return run_study(from_arguments(LargeBatchStudy, args))
