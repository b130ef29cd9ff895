"""Results of trainings on sentences: mean and deviation over seeds, differences to plain training, and their cost."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from fairseq_adv.experiments.commands import cpu_seconds
from fairseq_adv.scoring.row_resampling import row_difference, seed_p_value
from fairseq_adv.scoring.sentence_predictions import SCORE, read_numbers
from fairseq_adv.whole_files import write_text


class ScoredRun(NamedTuple):
    """One training: SUBSET -> metric -> score in [−1, 1]; ``cpu`` in seconds, NaN where it was not taken."""

    method: str
    seed: int
    folder: Path
    metrics: List[str]
    scores: Dict[str, Dict[str, float]]
    cpu: float

    def numbers(self, name: str, subset: str) -> List[float]:
        return read_numbers(self.folder / f"{name}.{subset}")


def read_run(folder: Path) -> ScoredRun:
    """A folder of ``fairseq-adv sentences evaluate``; ``FileNotFoundError`` says how to make one."""
    path = folder / SCORE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {SCORE}: fairseq-adv sentences evaluate {folder} --data BIN")
    score, told = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (SCORE, "run.json"))
    return ScoredRun(told["method"], int(told["seed"]), folder, score["metrics"], score["subsets"], cpu_seconds(folder))


def to_choose_by(scores: Dict[str, float]) -> float:
    """The set's first metric of *scores*; −∞ where it is not defined, as where a training diverged."""
    value = next(iter(scores.values()), math.nan)
    return -math.inf if math.isnan(value) else value


def by_method(runs: Sequence[ScoredRun]) -> Dict[str, Dict[int, ScoredRun]]:
    """Method → seed → run, in the order given. Raises ``ValueError`` for two of one seed."""
    found: Dict[str, Dict[int, ScoredRun]] = {}
    for run in runs:
        if run.seed in found.setdefault(run.method, {}):
            raise ValueError(f"{run.method} with seed {run.seed} was given twice: {run.folder}")
        found[run.method][run.seed] = run
    return found


def compared(system: Dict[int, ScoredRun], baseline: Dict[int, ScoredRun], subset: str, metric: str) -> Dict[str, Any]:
    """*system* against *baseline* on the seeds that both have; nothing if there are none."""
    seeds = sorted(set(system) & set(baseline))
    if not seeds:
        return {}
    targets = baseline[seeds[0]].numbers("targets", subset)
    for run in (each[seed] for each in (system, baseline) for seed in seeds):
        if run.numbers("targets", subset) != targets:
            raise ValueError(f"{run.folder} was scored on other rows than {baseline[seeds[0]].folder}")
    before, after = ([each[s].numbers("predictions", subset) for s in seeds] for each in (baseline, system))
    rows = row_difference(metric, before, after, targets)
    scores = [[each[s].scores[subset][metric] for s in seeds] for each in (baseline, system)]
    cost = [statistics.fmean(each[s].cpu for s in seeds) for each in (baseline, system)]
    return {**rows._asdict(), "p_seeds": seed_p_value(*scores), "cost": cost[1] / cost[0], "seeds": seeds}


def results(runs: Sequence[ScoredRun], baseline: str = "plain") -> List[Dict[str, Any]]:
    """A row for each method, *baseline* first, and scored subset; the first metric is compared with *baseline*."""
    methods = dict(sorted(by_method(runs).items(), key=lambda item: item[0] != baseline))
    subsets = [name for name in runs[0].scores if name != "valid"] or ["valid"]
    rows = []
    for subset in subsets:
        for method, of_seed in methods.items():
            metrics = runs[0].metrics
            values = {m: {s: run.scores[subset][m] for s, run in of_seed.items()} for m in metrics}
            valid = {seed: run.scores["valid"][metrics[0]] for seed, run in of_seed.items()}
            row: Dict[str, Any] = {"method": method, "subset": subset, "values": values, "valid": valid}
            if method != baseline and baseline in methods:
                row["against"] = compared(of_seed, methods[baseline], subset, metrics[0])
            rows.append(row)
    return rows


def markdown(rows: Sequence[Dict[str, Any]], untrained: Optional[Dict[str, Any]] = None) -> str:
    """Scores times 100, mean ± sample deviation over seeds; the difference with its interval over rows."""
    metrics = list(rows[0]["values"])
    heads = ["method", "set", "seeds", *metrics, f"valid {metrics[0]}", "difference [95 % over rows]"]
    lines = [[*heads, "p rows", "p seeds", "CPU time"], ["---", "---", *["---:"] * (len(heads) + 1)]]
    for name, scores in (untrained or {}).items():
        for subset in dict.fromkeys(row["subset"] for row in rows):
            cells = [_cell([scores[subset][metric]]) for metric in metrics]
            lines.append([name, subset, "–", *cells, _cell([scores["valid"][metrics[0]]]), "", "", "", ""])
    for row in rows:
        cells = [_cell(list(row["values"][metric].values())) for metric in metrics]
        shown = [row["method"], row["subset"], str(len(row["valid"])), *cells, _cell(list(row["valid"].values()))]
        lines.append([*shown, *_against(row.get("against") or {})])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _against(found: Dict[str, Any]) -> List[str]:
    if not found:
        return ["", "", "", ""]
    value, low, high = (100 * found[name] for name in ("value", "low", "high"))
    difference = f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if math.isfinite(value + low + high) else "–"
    p_values = [f"{found[name]:.3f}" if math.isfinite(found[name]) else "–" for name in ("p", "p_seeds")]
    cost = f"{found['cost']:.2f} ×" if math.isfinite(found["cost"]) else "–"
    return [difference, *p_values, cost]


def _cell(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if not math.isfinite(mean):
        return "–"
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean:.2f}{spread}"


def publish(runs: Sequence[ScoredRun], output: Path, untrained: Optional[Path] = None, baseline: str = "plain") -> str:
    """Write *output*.json and *output*.md; the table."""
    rows = results(runs, baseline)
    scores = json.loads(untrained.read_text(encoding="utf-8"))["baselines"] if untrained else None
    table = markdown(rows, scores)
    written = json.dumps({"baseline": baseline, "untrained": scores, "rows": rows}, indent=2) + "\n"
    for ending, text in ((".json", written), (".md", table)):
        write_text(output.with_name(output.name + ending), text)
    return table
