"""Train, score and compare methods at growing batches counted in target tokens; ``large_batch_study.sh`` calls this.

Every run sees the data for the same number of epochs. At × m the batch is m times ``--base-tokens``, the peak
learning rate √m times as high (``inverse_sqrt_batch``) and the warm-up m times shorter in updates, so that it lasts
as many epochs. Each run is scored on the test set at its last checkpoint (``--checkpoint``), and the same checkpoint
gives the generalisation gap: the nll of the validation set less that of the training set, both under evaluation
conditions (no dropout, no perturbation). The gap in training's own log would compare a regularised loss with a plain
one.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from fairseq_adv.experiments.jobs import Command, Run, finish
from fairseq_adv.experiments.large_batch_results import publish

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
METHODS = ("plain", "scala", "disadv", "conadv", "lamb")
RADIUS_OPTIONS: Dict[str, Sequence[str]] = {
    "scala": ("--scala-radius", "--scala-step-size"),
    "disadv": ("--disadv-alpha",),
    "conadv": ("--conadv-alpha",),
}
# A step that raises the cross-entropy itself has to be shorter: with 1, disadv and conadv hardly learn this text.
RADIUS = {"scala": 1.0, "disadv": 0.1, "conadv": 0.1}


class Setting(NamedTuple):
    """One run: *method* at *factor* times the base batch."""

    method: str
    factor: int
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.method}-x{self.factor}-seed{self.seed}"

    def options(self, args: argparse.Namespace) -> List[str]:
        """What ``fairseq-train`` gets beyond the common regime of ``train_small.sh``."""
        target = args.base_tokens * self.factor
        words = ["--max-tokens", min(target, args.max_tokens), "--target-batch-tokens", target, "--lr", args.lr]
        words += ["--lr-scheduler", "inverse_sqrt_batch", "--lr-base-batch-tokens", args.base_tokens]
        words += ["--lr-batch-power", 0.5, "--lr-warmup-init-lr", 1e-7]
        words += ["--lr-warmup-updates", max(1, round(args.warmup_updates / self.factor))]
        if self.method == "lamb":
            words += ["--optimizer", "adv_lamb", "--lamb-betas", "(0.9, 0.98)", "--lr", args.lamb_lr]
            words += ["--fp16-no-flatten-grads"]  # LAMB has to see each matrix; no effect without --fp16
        for option in RADIUS_OPTIONS.get(self.method, ()):
            words += [option, RADIUS[self.method] if args.radius is None else args.radius]
        return [str(word) for word in words]


def settings(args: argparse.Namespace) -> List[Setting]:
    """The grid; all of the first seed before the second."""
    pairs = [(method, factor) for method, factors in args.methods for factor in factors or args.factors]
    return [Setting(method, factor, seed) for seed in args.seeds for method, factor in dict.fromkeys(pairs)]


def commands(setting: Setting, args: argparse.Namespace) -> Iterator[Command]:
    """What is left to do for a run, step by step."""
    run = args.output / setting.folder
    criterion = "plain" if setting.method == "lamb" else setting.method
    train = ["bash", SCRIPTS / "train_small.sh", args.data, run, criterion, "--epochs", args.epochs]
    yield [*train, "--seed", setting.seed, "--", *setting.options(args)]
    checkpoint = run / "checkpoints" / args.checkpoint
    score = run / "score.json"
    if not (score.is_file() and score.stat().st_mtime >= checkpoint.stat().st_mtime):
        evaluate = ["bash", SCRIPTS / "evaluate_run.sh", args.data, run, args.work_dir / "raw"]
        yield [*evaluate, "--checkpoint", args.checkpoint]
    losses = run / "losses.log"
    if not (losses.is_file() and losses.stat().st_mtime >= checkpoint.stat().st_mtime):
        yield validation(checkpoint, losses, args)


def validation(checkpoint: Path, output: Path, args: argparse.Namespace) -> List[object]:
    """Losses of the training and the validation set as fairseq validates; the log gets its name when it is whole.

    ``--train-subset none`` tells the checkpoint's task that nothing is trained here.
    """
    script = (
        'output=$1; shift; device=(--cpu); python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" '
        '&& device=(); fairseq-validate "$@" "${device[@]}" >"$output.partial" 2>&1 && mv "$output.partial" "$output"'
    )
    options = ["--path", checkpoint, "--valid-subset", "train,valid", "--train-subset", "none"]
    options += ["--task", "adversarial_translation", "--max-tokens", 4096]
    user_dir = SCRIPTS.parent / "fairseq_adv"
    common = ["--user-dir", user_dir, "--required-batch-size-multiple", 1, "--log-format", "json"]
    return ["bash", "-c", script, "validate", output, args.data, *options, *common]


def method_and_factors(text: str) -> Tuple[str, List[int]]:
    """``scala`` → ("scala", []), ``scala:4,16`` → ("scala", [4, 16])."""
    method, _, factors = text.partition(":")
    if method not in METHODS:
        raise argparse.ArgumentTypeError(f"{method!r} is none of {', '.join(METHODS)}")
    try:
        numbers = [int(factor) for factor in factors.split(",")] if factors else []
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"write METHOD or METHOD:FACTOR,FACTOR such as scala:4,16, got {text!r}"
        ) from None
    return method, numbers


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    summary = "Methods at growing batches in target tokens, for a fixed number of epochs."
    parser = argparse.ArgumentParser(prog="large_batch_study.sh", description=summary)
    add = parser.add_argument
    add("--work-dir", type=Path, required=True, help="the quickstart's data folder, WORK/PAIR-PAIRS")
    every: List[Tuple[str, List[int]]] = [(name, []) for name in METHODS]
    of = f"of {', '.join(METHODS)}, each perhaps with batches of its own (default: all)"
    add("--methods", type=method_and_factors, nargs="+", default=every, metavar="METHOD[:M,M]", help=of)
    add("--factors", type=int, nargs="+", default=[1, 4, 16], help="batches as multiples of the base (default: 1 4 16)")
    add("--seeds", type=int, nargs="+", default=[1], help="seeds (default: 1)")
    add("--epochs", type=int, default=30, help="epochs of each run (default: 30)")
    add("--base-tokens", type=int, default=512, help="target tokens of an update at x1 (default: 512)")
    add("--max-tokens", type=int, default=1024, help="micro-batch, where the batch is not smaller (default: 1024)")
    add("--lr", type=float, default=0.003, help="Adam's learning rate at x1 (default: 0.003)")
    add("--warmup-updates", type=int, default=200, help="warm-up at x1 (default: 200)")
    add("--radius", type=float, help="radius of every method's perturbation (default: 1 for scala, 0.1 for the others)")
    add("--lamb-lr", type=float, default=0.02, help="LAMB's learning rate at x1 (default: 0.02)")
    add("--checkpoint", default="checkpoint_last.pt", help="what is scored (default: checkpoint_last.pt)")
    add("--jobs", type=int, default=1, help="runs at a time, one core each (default: 1)")
    args = parser.parse_args(argv)
    for name in ("epochs", "base_tokens", "max_tokens", "warmup_updates", "jobs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    factors = [*args.factors, *(factor for _, own in args.methods for factor in own)]
    if min(factors) < 1:
        parser.error(f"--factors must be at least 1, got {min(factors)}")
    args.data, args.output = args.work_dir / "bin", args.work_dir / f"large-batch-epochs{args.epochs}"
    if not args.data.is_dir():
        parser.error(f"no binarised data at {args.data}: run scripts/quickstart.sh first and give its data folder")
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse_args(argv)
    grid = settings(args)
    args.output.mkdir(parents=True, exist_ok=True)
    runs = [Run(args.output / setting.folder, partial(commands, setting, args)) for setting in grid]
    status = finish(runs, "large_batch_study.sh", args.jobs, args.epochs)
    if status == 130:
        return status
    found = [(s.method, s.factor, s.seed, args.output / s.folder) for s in grid]
    print(publish(found, args.base_tokens, args.output), end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
