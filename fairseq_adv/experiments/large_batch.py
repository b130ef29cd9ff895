"""Train, score and compare methods at growing batches counted in target tokens: ``fairseq-adv study large-batch``.

Every run sees the data for the same number of epochs. At × m the batch is m times ``--base-tokens``, the peak
learning rate √m times as high (``inverse_sqrt_batch``) and the warm-up m times shorter in updates, so that it lasts
as many epochs. Each run is scored on the test set at its last checkpoint (``--checkpoint``), and the same checkpoint
gives the generalisation gap: the nll of the validation set less that of the training set, both under evaluation
conditions (no dropout, no perturbation). The gap in training's own log would compare a regularised loss with a plain
one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from fairseq_adv.experiments.commands import evaluate, losses, refuse_unprepared, train_small
from fairseq_adv.experiments.jobs import Command, Run, finish
from fairseq_adv.experiments.large_batch_results import publish

METHODS = ("plain", "scala", "disadv", "conadv", "lamb")
RADIUS_OPTIONS: Dict[str, Sequence[str]] = {
    "scala": ("--scala-radius", "--scala-step-size"),
    "disadv": ("--disadv-alpha",),
    "conadv": ("--conadv-alpha",),
}
# A step that raises the cross-entropy itself has to be shorter: with 1, disadv and conadv hardly learn this text.
RADIUS = {"scala": 1.0, "disadv": 0.1, "conadv": 0.1}


def method_and_batches(text: str, methods: Sequence[str], unit: str = "FACTOR") -> Tuple[str, List[int]]:
    """``scala`` → ("scala", []), ``scala:4,16`` → ("scala", [4, 16]), which are batches in *unit*."""
    method, _, batches = text.partition(":")
    try:
        if method in methods:
            return method, [int(batch) for batch in batches.split(",")] if batches else []
    except ValueError:
        pass
    raise ValueError(f"--methods takes {', '.join(methods)}, or with batches METHOD:{unit},{unit}; got {text!r}")


@dataclass(frozen=True)
class LargeBatchStudy:
    """The options of the study."""

    work_dir: Path = field(metadata={"help": "the quickstart's data folder, WORK/PAIR-PAIRS"})
    methods: Sequence[str] = field(
        default=METHODS,
        metadata={"help": "what to train; each perhaps with batches of its own", "metavar": "METHOD[:M,M]"},
    )
    factors: Sequence[int] = field(default=(1, 4, 16), metadata={"help": "batches as multiples of the base"})
    seeds: Sequence[int] = field(default=(1,), metadata={"help": "seeds"})
    epochs: int = field(default=30, metadata={"help": "epochs of each run"})
    base_tokens: int = field(default=512, metadata={"help": "target tokens of an update at x1"})
    max_tokens: int = field(default=1024, metadata={"help": "micro-batch, where the batch is not smaller"})
    lr: float = field(default=0.003, metadata={"help": "Adam's learning rate at x1"})
    warmup_updates: int = field(default=200, metadata={"help": "warm-up at x1, in updates"})
    radius: Optional[float] = field(
        default=None,
        metadata={"help": "radius of every method's perturbation (default: 1 for scala, 0.1 for the others)"},
    )
    lamb_lr: float = field(default=0.02, metadata={"help": "LAMB's learning rate at x1"})
    checkpoint: str = field(default="checkpoint_last.pt", metadata={"help": "what is scored"})
    jobs: int = field(default=1, metadata={"help": "runs at a time, one core each"})

    def __post_init__(self) -> None:
        for name in ("epochs", "base_tokens", "max_tokens", "warmup_updates", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        smallest = min(factor for _, factor in self.cells)
        if smallest < 1:
            raise ValueError(f"--factors must be at least 1, got {smallest}")
        refuse_unprepared(self.data)

    @property
    def data(self) -> Path:
        return self.work_dir / "bin"

    @property
    def output(self) -> Path:
        return self.work_dir / f"large-batch-epochs{self.epochs}"

    @property
    def cells(self) -> List[Tuple[str, int]]:
        """(method, factor) of each cell, each once."""
        chosen = [method_and_batches(text, METHODS) for text in self.methods]
        return list(dict.fromkeys((method, factor) for method, own in chosen for factor in own or self.factors))


class Setting(NamedTuple):
    """One run: *method* at *factor* times the base batch."""

    method: str
    factor: int
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.method}-x{self.factor}-seed{self.seed}"

    def options(self, study: LargeBatchStudy) -> List[str]:
        """What ``fairseq-train`` gets beyond the common regime of ``train_small.sh``."""
        target = study.base_tokens * self.factor
        words = ["--max-tokens", min(target, study.max_tokens), "--target-batch-tokens", target, "--lr", study.lr]
        words += ["--lr-scheduler", "inverse_sqrt_batch", "--lr-base-batch-tokens", study.base_tokens]
        words += ["--lr-batch-power", 0.5, "--lr-warmup-init-lr", 1e-7]
        words += ["--lr-warmup-updates", max(1, round(study.warmup_updates / self.factor))]
        if self.method == "lamb":
            words += ["--optimizer", "adv_lamb", "--lamb-betas", "(0.9, 0.98)", "--lr", study.lamb_lr]
            words += ["--fp16-no-flatten-grads"]  # LAMB has to see each matrix; no effect without --fp16
        for option in RADIUS_OPTIONS.get(self.method, ()):
            words += [option, RADIUS[self.method] if study.radius is None else study.radius]
        return [str(word) for word in words]


def settings(study: LargeBatchStudy) -> List[Setting]:
    """The grid; all of the first seed before the second."""
    return [Setting(method, factor, seed) for seed in study.seeds for method, factor in study.cells]


def commands(setting: Setting, study: LargeBatchStudy) -> Iterator[Command]:
    """What is left to do for a run, step by step."""
    run = study.output / setting.folder
    criterion = "plain" if setting.method == "lamb" else setting.method
    train = train_small(study.data, run, criterion, "--epochs", study.epochs)
    yield [*train, "--seed", setting.seed, "--", *setting.options(study)]
    checkpoint = run / "checkpoints" / study.checkpoint
    score = run / "score.json"
    if not (score.is_file() and score.stat().st_mtime >= checkpoint.stat().st_mtime):
        yield evaluate(study.data, run, study.work_dir / "raw", "--checkpoint", study.checkpoint)
    yield from losses(study.data, run, "train,valid", study.checkpoint)


def run_study(study: LargeBatchStudy) -> int:
    """Train and score what is left, publish the table and print it; the exit status of :func:`finish`."""
    grid = settings(study)
    study.output.mkdir(parents=True, exist_ok=True)
    runs = [Run(study.output / setting.folder, partial(commands, setting, study)) for setting in grid]
    status = finish(runs, "fairseq-adv study large-batch", study.jobs, study.epochs)
    if status == 130:
        return status
    found = [(s.method, s.factor, s.seed, study.output / s.folder) for s in grid]
    print(publish(found, study.base_tokens, study.output), end="")
    return status
