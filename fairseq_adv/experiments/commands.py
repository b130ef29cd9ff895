"""The commands that experiments are made of: this interpreter's ``fairseq-adv``, a small training, a validation."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Iterator, List

FAIRSEQ_ADV = (sys.executable, "-m", "fairseq_adv.cli.main")
PACKAGE = Path(__file__).resolve().parents[1]
TRAIN_SMALL = Path(__file__).with_name("train_small.sh")
CPU = "cpu-seconds"  # of a run: user and system time of each attempt at training it
LOSSES = "losses.log"  # of a run: what fairseq-validate printed for some of the sets

_TO_FILE = (
    'output=$1; shift; device=(--cpu); python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" '
    '&& device=(); fairseq-validate "$@" "${device[@]}" >"$output.partial" 2>&1 && mv "$output.partial" "$output"'
)


def refuse_unprepared(data: Path) -> None:
    """Raise ``ValueError`` where the binarised *data* of :func:`train_small` are not there."""
    if not data.is_dir():
        raise ValueError(f"no binarised data at {data}: run scripts/quickstart.sh first and give its data folder")


def train_small(*words: object) -> List[object]:
    """What trains the small Transformer: DATA RUN METHOD, options, and after ``--`` those of ``fairseq-train``."""
    return ["bash", TRAIN_SMALL, *words]


def evaluate(*words: object) -> List[object]:
    """What translates and scores with a run's checkpoint: DATA RUN RAW and options."""
    return [*FAIRSEQ_ADV, "evaluate", *words]


def validation(data: Path, checkpoint: Path, output: Path, subsets: str) -> List[object]:
    """Losses of *subsets* (``train,valid``) as fairseq validates; the log *output* gets its name when it is whole.

    ``--train-subset none`` tells the checkpoint's task that nothing is trained here.
    """
    options = ["--path", checkpoint, "--valid-subset", subsets, "--train-subset", "none"]
    options += ["--task", "adversarial_translation", "--max-tokens", 4096, "--required-batch-size-multiple", 1]
    return ["bash", "-c", _TO_FILE, "validate", output, data, *options, "--user-dir", PACKAGE, "--log-format", "json"]


def losses(data: Path, run: Path, subsets: str, checkpoint_name: str = "checkpoint_best.pt") -> Iterator[List[object]]:
    """:func:`validation` of a run's checkpoint into its :data:`LOSSES`, where that is missing or older."""
    output, checkpoint = run / LOSSES, run / "checkpoints" / checkpoint_name
    if not output.is_file() or output.stat().st_mtime < checkpoint.stat().st_mtime:
        yield validation(data, checkpoint, output, subsets)


def cpu_seconds(run: Path) -> float:
    """What a run's training took of a processor, all attempts together; NaN where it was not taken."""
    times = run / CPU
    return sum(map(float, times.read_text(encoding="utf-8").split())) if times.is_file() else math.nan
