"""A trained run on disk: its log, its scores, and the facts that a report states about it."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from fairseq_adv.report.logs import Record, TrainingLog, read_log
from fairseq_adv.report.selection import Selection

LOGS = ("train.log", "hydra_train.log")  # the scripts' fairseq-train, fairseq-hydra-train


@dataclass(frozen=True)
class Run:
    """One training: ``score`` is what ``fairseq-adv score`` wrote, ``probe`` what ``fairseq-adv probe`` did.

    Both are empty where that was not done.
    """

    method: str
    seed: int
    folder: Path
    log: TrainingLog
    score: Dict[str, Any]
    probe: Dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.method} (seed {self.seed})"

    @property
    def selection(self) -> Selection:
        """By what the run chose its best checkpoint."""
        return Selection.of(self.log)

    @property
    def best_validation(self) -> Optional[Record]:
        """The validation of fairseq's ``checkpoint_best.pt``, by the run's own ``--best-checkpoint-metric``."""
        return self.selection.best(self.log.validations)

    @property
    def wall_seconds(self) -> float:
        """Duration of the whole training, validations included, interruptions left out."""
        return max((r["wall"] for r in [*self.log.updates, *self.log.epochs] if "wall" in r), default=math.nan)

    @property
    def seconds_per_epoch(self) -> float:
        """Mean wall time of the epochs that were finished, validations included."""
        finished = [r for r in self.log.epochs if "wall" in r]
        return finished[-1]["wall"] / finished[-1]["epoch"] if finished else math.nan


@dataclass(frozen=True)
class EpochCost:
    """What one epoch's updates cost; ``refresh`` is None for methods without a perturbation cache."""

    epoch: int
    seconds_per_update: float
    updates: int
    refresh: Optional[bool]


def load_run(argument: str) -> Run:
    """A run from its folder, or from ``NAME=FOLDER`` to call its method *NAME*.

    The folder holds ``train.log`` or hydra's ``hydra_train.log``, and optionally ``score.json`` and ``run.json``
    (``method``, ``seed``). Without ``run.json`` the criterion and the seed in the log tell. Raises
    ``FileNotFoundError`` without a log.
    """
    name, folder = _name_and_folder(argument)
    path = next((folder / log for log in LOGS if (folder / log).is_file()), folder)
    if not path.is_file():
        raise FileNotFoundError(f"no run at {folder}: a run is a folder with the {' or '.join(LOGS)} of fairseq in it")
    log = read_log(path)
    told = _read_json(path.parent / "run.json")
    criterion = str(log.options.get("criterion", {}).get("_name", path.parent.name))
    method = name or told.get("method") or method_of(criterion)
    seed = told.get("seed", log.options.get("common", {}).get("seed", 1))
    score, probe = (_read_json(path.parent / name) for name in ("score.json", "probe.json"))
    return Run(str(method), int(seed), path.parent, log, score, probe)


def _name_and_folder(argument: str) -> Tuple[str, Path]:
    """The name is empty if *argument* is a path; paths may hold ``=`` themselves, as hydra's folders do."""
    splits = [("", argument)]
    for position in (place for place, character in enumerate(argument) if character == "="):
        splits.append((argument[:position], argument[position + 1 :]))
    name, folder = next((split for split in splits if Path(split[1]).exists()), splits[-1])
    return name, Path(folder)


def method_of(criterion: str) -> str:
    """``arch_label_smoothed`` is arch; fairseq's own label-smoothed cross-entropy is plain."""
    if criterion == "label_smoothed_cross_entropy":
        return "plain"
    return re.sub(r"_label_smoothed(_cross_entropy)?$", "", criterion)


def load_runs(arguments: List[str]) -> List[Run]:
    """All runs, in the order given. Raises ``ValueError`` if two have the same method and seed."""
    runs = [load_run(argument) for argument in arguments]
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice and not _differ_in_options([run for run in runs if run.name == twice]):
        raise ValueError(f"{twice} was given twice: tell the runs apart with NAME=FOLDER")
    return runs


def _differ_in_options(runs: List[Run]) -> bool:
    options = [json.dumps(run.log.options.get("criterion", {}), sort_keys=True, default=str) for run in runs]
    return len(set(options)) == len(options)


def epoch_costs(log: TrainingLog) -> List[EpochCost]:
    """Cost of each epoch, from the updates per second of its log intervals.

    The median over an epoch's intervals leaves out the one that a validation interrupts. An epoch counts as a
    refresh epoch when most of its updates were (``adv_refresh``), unless all or none of the epochs are.
    """
    costs = []
    cached = len({epoch.get("adv_refresh", 0.0) > 0.5 for epoch in log.epochs}) == 2
    previous = 0.0
    for epoch in log.epochs:
        inside = [r for r in log.updates if previous < r["num_updates"] <= epoch["num_updates"] and r.get("ups", 0) > 0]
        updates = int(epoch["num_updates"] - previous)
        previous = epoch["num_updates"]
        if inside:
            refresh = epoch.get("adv_refresh", 0.0) > 0.5 if cached else None
            seconds = statistics.median(1 / r["ups"] for r in inside)
            costs.append(EpochCost(int(epoch["epoch"]), seconds, updates, refresh))
    return costs


def _read_json(path: Path) -> Dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
