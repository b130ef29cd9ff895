"""Read the logs that ``fairseq-train --log-format json`` and ``fairseq-hydra-train`` print.

A line looks like ``DATE | INFO | train_inner | {"epoch": 1, "num_updates": "10", "loss": "9.1", …}``, and with hydra
like ``[DATE][train_inner][INFO] - {…}``. Lines of ``train_inner`` come every ``--log-interval`` updates, one of
``train`` and one of ``valid`` at the end of an epoch.
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Tuple

Record = Dict[str, float]
SECTIONS = ("common", "criterion", "optimization", "dataset", "checkpoint")

_LINE = re.compile(r"(?:\| INFO \| |\]\[)(\w+)(?: \| |\]\[INFO\] - )(\{.*\})\s*$")
_CONFIG = re.compile(r"(?:\| INFO \| |\]\[)fairseq_cli\.train(?: \| |\]\[INFO\] - )(\{'_name'.*\})\s*$")
_RESUMED = re.compile(r"Loaded checkpoint .*\(epoch \d+ @ (\d+) updates\)|No existing checkpoint found")
_OPTION = re.compile(r"'(\w+)': ('(?:[^'\\]|\\.)*'|[^,{}\[\]()]+)(?=[,}])")


@dataclass
class TrainingLog:
    """One training, without the part that an interruption made it repeat.

    ``updates``, ``epochs`` and ``validations`` hold the records of ``train_inner``, ``train`` and the validation
    set, with names as fairseq logs them less the set's prefix (``valid_nll_loss`` is ``nll_loss``); losses are in
    bits per token as fairseq prints them, ``wall`` in seconds since the start. ``options`` holds the values of
    the configuration's :data:`SECTIONS`. ``valid_subset`` is the set of ``validations``: the first of
    ``--valid-subset``, by which fairseq chooses its best checkpoint.
    """

    updates: List[Record] = field(default_factory=list)
    epochs: List[Record] = field(default_factory=list)
    validations: List[Record] = field(default_factory=list)
    options: Dict[str, Dict[str, object]] = field(default_factory=dict)
    valid_subset: str = "valid"

    def series(self, records: List[Record], name: str) -> Tuple[List[float], List[float]]:
        """(update numbers, values) of *name* where it was logged as a finite number."""
        found = [(r["num_updates"], r[name]) for r in records if math.isfinite(r.get(name, math.nan))]
        return [update for update, _ in found], [value for _, value in found]

    def wall_at(self, update: float) -> float:
        """Seconds since the start when *update* was done, interpolated between logged points."""
        import numpy as np

        points = sorted((r["num_updates"], r["wall"]) for r in [*self.updates, *self.epochs] if "wall" in r)
        if not points:
            return math.nan
        return float(np.interp(update, [0.0, *(p[0] for p in points)], [0.0, *(p[1] for p in points)]))

    def epoch_at(self, update: float) -> float:
        """How many passes over the data *update* amounts to; fractional inside an epoch."""
        import numpy as np

        passes = [(r["num_updates"], r["update"]) for r in self.updates if "update" in r]
        points = sorted([(0.0, 0.0), *passes, *((r["num_updates"], r["epoch"]) for r in self.epochs)])
        return float(np.interp(update, [p[0] for p in points], [p[1] for p in points]))


def read_log(path: Path) -> TrainingLog:
    """Parse a log file.

    When the training was resumed, updates after the checkpoint appear twice and the later ones count; fairseq's
    clock starts again at 0, here it goes on from the checkpoint. Raises ``ValueError`` if the file has no json
    records at all.
    """
    log = TrainingLog()
    wall_before = 0.0  # seconds of training that led to the checkpoint this session started from
    streams = {"train_inner": log.updates, "train": log.epochs, log.valid_subset: log.validations}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            config = _CONFIG.search(line)
            if config:
                log.options = _options(config[1])
                log.valid_subset = str(log.options.get("dataset", {}).get("valid_subset", "valid")).split(",")[0]
                streams = {"train_inner": log.updates, "train": log.epochs, log.valid_subset: log.validations}
            resumed = _RESUMED.search(line)
            if resumed:
                wall_before = _rewind(log, float(resumed[1] or 0))
            match = _LINE.search(line)
            if not match or match[1] not in streams:
                continue
            record = _record(match[2], prefix=match[1])
            if record is not None:
                if "wall" in record:
                    record["wall"] += wall_before
                streams[match[1]].append(record)
    if not (log.updates or log.epochs):
        raise ValueError(
            f"{path} has no json records of fairseq-train: was it run with --log-format json (common.log_format=json)?"
        )
    return log


def _rewind(log: TrainingLog, update: float) -> float:
    """Forget what came after *update*; the seconds that training had taken until then."""
    for stream in (log.updates, log.epochs, log.validations):
        stream[:] = [record for record in stream if record["num_updates"] <= update]
    return log.wall_at(update) if log.updates or log.epochs else 0.0


def _record(text: str, prefix: str) -> Optional[Record]:
    """The numbers of one json line; None for a line cut short by a crash or without an update number."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    record = {}
    for name, value in values.items():
        try:
            record[name[len(prefix) + 1 :] if name.startswith(prefix + "_") else name] = float(value)
        except (TypeError, ValueError):
            continue
    return record if "num_updates" in record else None


def _options(text: str) -> Dict[str, Dict[str, object]]:
    """Scalar options of the sections that a report needs, out of the printed configuration.

    fairseq prints the dictionary with Python objects in it, so it is no literal as a whole.
    """
    sections = {}
    for section in SECTIONS:
        match = re.search(rf"'{section}': (?={{)", text)
        if match:
            sections[section] = {name: _literal(value) for name, value in _OPTION.findall(_braces(text[match.end() :]))}
    return sections


def _braces(text: str) -> str:
    """The leading ``{…}`` of *text*."""
    depth = 0
    for position, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[: position + 1]
    return text


def _literal(text: str) -> object:
    """A value as Python wrote it: ``inf`` and ``nan`` are numbers without quotes, other bare words are names."""
    if text.strip().lstrip("-") in ("inf", "nan"):
        return float(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text.strip()
