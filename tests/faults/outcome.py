"""What a killed and restarted training is compared by: parameters, recorded sums, logged losses, cache, error lines."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch

from tests.faults.rank_process import recorded

_LOG_LINE = re.compile(r"\| INFO \| (train_inner|train|valid) \| (\{.*\})$")
_TIMING = re.compile(r"wps|ups|wall|gb_free|clip$")  # clip: a share since the last checkpoint was loaded
_ERROR = re.compile(r"\bERROR\b|Traceback|^\w*(Error|Exception)\b", re.MULTILINE)
# what a rank says that lost its peer or the store of rank 0, or that torchrun says of a killed rank
_PEER_GONE = re.compile(
    r"onnection (closed|reset|refused)|Broken pipe|onnectFullMesh|Socket|DistNetworkError|recvValue|Timed out waiting|"
    r"DistStoreError|exitcode: -9|ChildFailedError|Signal 9|SIGKILL"
)


def check_logs(logs: List[Path], killed: bool) -> List[str]:
    """Complaints about errors in *logs* that a SIGKILL of another rank does not explain."""
    complaints = []
    for log in logs:
        text = log.read_text(errors="replace") if log.exists() else ""
        if _ERROR.search(text) and not (killed and _PEER_GONE.search(text)):
            lines = [line for line in text.splitlines() if line.strip()]
            complaints.append(f"{log}: {lines[-1][:300]}")
    return complaints


def logged(logs: List[Path]) -> List[Tuple[Tuple[str, int], Dict[str, Any]]]:
    """((tag, update), values without timings) of fairseq's JSON lines, in order."""
    rows = []
    for log in logs:
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            found = _LOG_LINE.search(line)
            if found:
                values = {key: value for key, value in json.loads(found[2]).items() if not _TIMING.search(key)}
                update = next(int(float(value)) for key, value in values.items() if key.endswith("num_updates"))
                rows.append(((found[1], update), values))
    return rows


def first_difference(whole: Any, other: Any, where: str = "") -> str:
    """Path and values of the first thing in which two nests of containers and tensors differ; empty if equal."""
    if isinstance(whole, torch.Tensor) and isinstance(other, torch.Tensor):
        return "" if torch.equal(whole, other) else f"{where}: tensors differ"
    if isinstance(whole, dict) and isinstance(other, dict):
        if list(whole) != list(other):
            return f"{where}: {sorted(map(str, set(whole) ^ set(other)))} on one side"
        pairs = [(f"{where}.{key}", whole[key], other[key]) for key in whole]
    elif isinstance(whole, (list, tuple)) and isinstance(other, (list, tuple)) and len(whole) == len(other):
        pairs = [(f"{where}[{index}]", *pair) for index, pair in enumerate(zip(whole, other))]
    else:
        return "" if whole == other else f"{where}: {whole} -> {other}"
    return next(filter(None, (first_difference(a, b, name) for name, a, b in pairs)), "")


def compare_losses(reference: Path, folder: Path, logs: List[Path], reference_logs: List[Path]) -> List[str]:
    """Every attempt's recorded sums (exact) and logged lines (as printed) against the uninterrupted run's."""
    complaints = []
    for sums in sorted(reference.glob("sums-*")):
        whole = {row["update"]: row for row in recorded(sums)}
        seen = set()
        for row in recorded(folder / sums.name):
            seen.add(row["update"])
            if row != whole.get(row["update"]):
                complaints.append(f"{sums.name}, update {row['update']}: {whole.get(row['update'])} -> {row}")
        if seen != set(whole):
            complaints.append(f"{sums.name}: updates {sorted(seen ^ set(whole))} on one side only")
    lines = dict(logged(reference_logs))
    rows = logged(logs)
    for place, values in rows:
        if values != lines.get(place):
            complaints.append(f"log, {place}: {lines.get(place)} -> {values}")
    missing = set(lines) - {place for place, _ in rows}
    return complaints + ([f"log: no lines of {sorted(missing)}"] if missing else [])


def compare_end(reference: Path, folder: Path) -> List[str]:
    """Final model, optimizer and cache in *folder* against those of *reference*, and ``fairseq-adv cache verify``."""
    from fairseq_adv.cache import open_cache
    from fairseq_adv.cli.main import main

    states = [torch.load(path / "save/checkpoint_last.pt", weights_only=False) for path in (reference, folder)]
    complaints = []
    for part in ("model", "last_optimizer_state"):
        difference = first_difference(states[0][part], states[1][part], part)
        complaints += [f"checkpoint_last.pt, {difference}"] if difference else []
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main(["cache", "verify", str(folder / "save/perturbations")])
    complaints += [f"cache verify: exit status {code}: {output.getvalue()[-300:]}"] if code else []
    caches = []
    for path in (reference, folder):
        reader = open_cache(path / "save/perturbations")
        ids = sorted(reader.ids.tolist())
        values = {side: dict(zip(ids, reader.read(ids, side))) for side in reader.sides}
        caches.append({"generation": reader.manifest.generation, "ids": ids, **values})
    difference = first_difference(caches[0], caches[1], "cache")
    return complaints + ([difference] if difference else [])
