"""How large should a perturbation be, when should it start, and how much of the gain is dropout?

Trains ARCH for each radius ε (0, 0.1, 0.3, 1, 2) × started at once or after plain training has settled
(``--adv-start-update``) × outer dropout masks fresh or shared, and plain once. With fresh masks ε = 0 is pure
dropout consistency; with shared masks it is plain training. The ascent's step size is ε, so that three steps can
reach any point of the ball. Runs that are done are not repeated; a run that was interrupted goes on from its last
epoch; a failed run does not stop the others. Ends with a table of the validation nll in Markdown, the best one and
those after a quarter, a half and all of the epochs; also in ``WORK/sweep-epochsN/sweep.json`` and ``sweep.md``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from fairseq_adv.experiments.commands import refuse_unprepared, train_small
from fairseq_adv.experiments.jobs import Command, Run, finish
from fairseq_adv.report.runs import load_run
from fairseq_adv.whole_files import write_text


@dataclass(frozen=True)
class EpsSweep:
    """The options of the command."""

    work_dir: Path = field(metadata={"help": "the quickstart's data folder, work/PAIR-PAIRS"})
    eps: Sequence[float] = field(default=(0, 0.1, 0.3, 1, 2), metadata={"help": "radii"})
    starts: Sequence[int] = field(default=(0, 1000), metadata={"help": "first updates with perturbations"})
    masks: Sequence[str] = field(
        default=("fresh", "shared"), metadata={"choices": ["fresh", "shared"], "help": "outer dropout masks"}
    )
    seeds: Sequence[int] = field(default=(1,), metadata={"help": "seeds"})
    epochs: int = field(default=40, metadata={"help": "epochs of each run"})
    jobs: int = field(default=1, metadata={"help": "trainings at a time, one core each"})

    def __post_init__(self) -> None:
        for option in ("jobs", "epochs"):
            if getattr(self, option) < 1:
                raise ValueError(f"--{option} must be at least 1, got {getattr(self, option)}")
        if min(self.eps) < 0 or not all(map(math.isfinite, self.eps)):
            raise ValueError(f"--eps must be 0 or larger, got {' '.join(map(str, self.eps))}")
        refuse_unprepared(self.data)

    @property
    def data(self) -> Path:
        return self.work_dir / "bin"

    @property
    def output(self) -> Path:
        return self.work_dir / f"sweep-epochs{self.epochs}"


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


def settings(sweep: EpsSweep) -> List[Setting]:
    """The grid, plain first. Shared masks with ε = 0 are left out: they are plain training bit for bit."""
    grid = [
        Setting(eps, start, masks, seed)
        for seed in sweep.seeds
        for eps in sweep.eps
        for start in sweep.starts
        for masks in sweep.masks
        if not (eps == 0 and masks == "shared")
    ]
    return [Setting(None, 0, "fresh", seed) for seed in sweep.seeds] + grid


def commands(setting: Setting, sweep: EpsSweep) -> Iterator[Command]:
    """What trains one setting to its end."""
    method = "plain" if setting.eps is None else "arch"
    neighbors = sweep.work_dir / f"neighbors-seed{setting.seed}.safetensors"
    train = train_small(sweep.data, sweep.output / setting.folder, method, "--epochs", sweep.epochs)
    train += ["--seed", setting.seed]
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


def run_sweep(sweep: EpsSweep) -> int:
    """Train what is left, publish the table and print it; the exit status of :func:`finish`."""
    grid = settings(sweep)
    sweep.output.mkdir(parents=True, exist_ok=True)
    runs = [Run(sweep.output / setting.folder, partial(commands, setting, sweep)) for setting in grid]
    status = finish(runs, "fairseq-adv sweep", sweep.jobs, sweep.epochs)
    if status == 130:
        return status
    rows = [result(setting, sweep.output) for setting in grid]
    table = markdown(rows, sweep.epochs)
    write_text(sweep.output / "sweep.json", json.dumps(rows, indent=2) + "\n")
    write_text(sweep.output / "sweep.md", table)
    print(table, end="")
    return status
