"""How large should a perturbation be, when should it start, and how much of the gain is dropout?

    bash scripts/quickstart.sh --pairs 2500 --prepare-only
    python scripts/eps_sweep.py --work-dir work/en-de-2500 --epochs 40 --jobs 2

trains ARCH for each radius ε (0, 0.1, 0.3, 1, 2) × started at once or after plain training has settled
(``--adv-start-update``) × outer dropout masks fresh or shared, and plain once. With fresh masks ε = 0 is pure
dropout consistency; with shared masks it is plain training. The ascent's step size is ε, so that three steps can
reach any point of the ball. Runs that are done are not repeated; a run that was interrupted goes on from its last
epoch; a failed run does not stop the others. Ends with a table of the validation nll in Markdown, the best one and
those after a quarter, a half and all of the epochs; also in ``WORK/sweep-epochsN/sweep.json`` and ``sweep.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from fairseq_adv.experiments.jobs import Command, Run, finish
from fairseq_adv.report.runs import load_run

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class Setting(NamedTuple):
    """One run; ``eps`` None is plain training."""

    eps: Optional[float]
    start: int
    masks: str
    seed: int

    @property
    def folder(self) -> str:
        if self.eps is None:
            return f"plain-seed{self.seed}"
        return f"eps{self.eps:g}-start{self.start}-{self.masks}-seed{self.seed}"

    def options(self, neighbors: Optional[Path]) -> List[str]:
        """What ``fairseq-train`` gets beyond the common regime."""
        if self.eps is None:
            return []
        options = ["--adv-eps", f"{self.eps:g}", "--adv-step-size", f"{self.eps or 0.1:g}"]
        options += ["--adv-start-update", str(self.start), "--adv-outer-masks", self.masks]
        return options + (["--cache-neighbors", str(neighbors)] if neighbors else [])


def settings(args: argparse.Namespace) -> List[Setting]:
    """The grid, plain first. Shared masks with ε = 0 are left out: they are plain training bit for bit."""
    grid = [
        Setting(eps, start, masks, seed)
        for seed in args.seeds
        for eps in args.eps
        for start in args.starts
        for masks in args.masks
        if not (eps == 0 and masks == "shared")
    ]
    return [Setting(None, 0, "fresh", seed) for seed in args.seeds] + grid


def commands(setting: Setting, args: argparse.Namespace) -> Iterator[Command]:
    """What trains one setting to its end."""
    method = "plain" if setting.eps is None else "arch"
    neighbors = args.work_dir / f"neighbors-seed{setting.seed}.safetensors"
    train = ["bash", SCRIPTS / "train_small.sh", args.data, args.output / setting.folder, method]
    train += ["--epochs", args.epochs, "--seed", setting.seed]
    yield [*train, "--", *setting.options(neighbors if neighbors.is_file() else None)]


def result(setting: Setting, output: Path) -> Dict[str, Any]:
    """What a run reached so far: the best validation nll, its epoch, and whether training is complete."""
    row: Dict[str, Any] = {**setting._asdict(), "valid_nll": None, "best_epoch": None, "done": False, "by_epoch": {}}
    run = output / setting.folder
    try:
        loaded = load_run(str(run))
        best = loaded.best_validation
    except (OSError, ValueError):
        return row
    row["by_epoch"] = {int(line["epoch"]): line["nll_loss"] for line in loaded.log.validations}
    row["done"] = (run / "done").is_file()
    if best:
        row.update(valid_nll=best["nll_loss"], best_epoch=int(best["epoch"]))
    return row


def markdown(rows: Sequence[Dict[str, Any]], epochs: int) -> str:
    """One line for each run: the best validation nll, its difference to plain of the same seed, and its course."""
    plain = {row["seed"]: row["valid_nll"] for row in rows if row["eps"] is None}
    course = sorted({max(1, epochs // 4), max(1, epochs // 2), epochs})
    heads = ["ε", "start (update)", "masks", "seed", "valid nll", "best epoch", "− plain"]
    heads += [f"epoch {epoch}" for epoch in course]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        nll, base = row["valid_nll"], plain.get(row["seed"])
        value = f"{nll:.3f}" + ("" if row["done"] else " (unfinished)") if isinstance(nll, float) else "–"
        known = isinstance(nll, float) and isinstance(base, float)
        difference = f"{nll - base:+.3f}" if known and row["eps"] is not None else "–"
        name = ["plain", "", ""] if row["eps"] is None else [f"{row['eps']:g}", str(row["start"]), str(row["masks"])]
        cells = [*name, str(row["seed"]), value, str(row["best_epoch"] or "–"), difference]
        cells += [f"{row['by_epoch'][epoch]:.3f}" if epoch in row["by_epoch"] else "–" for epoch in course]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ARCH over radius, start and dropout masks.")
    parser.add_argument("--work-dir", type=Path, required=True, help="the quickstart's data folder, work/PAIR-PAIRS")
    parser.add_argument("--eps", type=float, nargs="+", default=[0, 0.1, 0.3, 1, 2], help="radii (default: all five)")
    parser.add_argument("--starts", type=int, nargs="+", default=[0, 1000], help="first updates (default: 0 1000)")
    parser.add_argument("--masks", nargs="+", choices=["fresh", "shared"], default=["fresh", "shared"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="seeds (default: 1)")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of each run (default: 40)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one core each (default: 1)")
    args = parser.parse_args(argv)
    args.data, args.output = args.work_dir / "bin", args.work_dir / f"sweep-epochs{args.epochs}"
    if args.jobs < 1 or args.epochs < 1:
        parser.error(f"--jobs and --epochs must be at least 1, got {args.jobs} and {args.epochs}")
    if min(args.eps) < 0 or not all(map(math.isfinite, args.eps)):
        parser.error(f"--eps must be 0 or larger, got {min(args.eps)}")
    if not args.data.is_dir():
        parser.error(f"no binarised data at {args.data}: run scripts/quickstart.sh first and give its data folder")
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse_args(argv)
    grid = settings(args)
    args.output.mkdir(parents=True, exist_ok=True)
    runs = [Run(args.output / setting.folder, partial(commands, setting, args)) for setting in grid]
    status = finish(runs, "eps_sweep.py", args.jobs, args.epochs)
    if status == 130:
        return status
    rows = [result(setting, args.output) for setting in grid]
    write_text(args.output / "sweep.json", json.dumps(rows, indent=2) + "\n")
    write_text(args.output / "sweep.md", markdown(rows, args.epochs))
    print(markdown(rows, args.epochs), end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
