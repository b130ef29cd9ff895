"""When trainings at growing batches reach the accuracy of plain training at the smallest: table, JSON and plot."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

from fairseq_adv.experiments.sentence_results import read_run
from fairseq_adv.report.runs import Run, load_run
from fairseq_adv.report.style import BASELINE_COLOR, COLORS, RC, legend_below, side_by_side
from fairseq_adv.whole_files import write_text


class Found(NamedTuple):
    """A run of the study."""

    method: str
    batch: int
    rate: str
    seed: int
    folder: Path


# What the panels of the figure show, by the key of a row.
PANELS = {
    "seconds": "Seconds to the target",
    "updates": "Updates to the target",
    "valid": "Best validation; dashed: target",
}
Row = Dict[str, Any]
Cell = Tuple[int, str]


def best_of(run: Run) -> float:
    """The best validation by the run's own ``--best-checkpoint-metric``; NaN without one."""
    best = run.best_validation
    return math.nan if best is None else best[run.selection.metric]


def reached(run: Run, target: float) -> float:
    """Updates until a validation first is as good as *target*; infinite if none is."""
    metric, sign = run.selection.metric, 1 if run.selection.maximize else -1
    updates = (r["num_updates"] for r in run.log.validations if sign * r.get(metric, math.nan) >= sign * target)
    return next(updates, math.inf)


def wall_until(run: Run, cpu: float, updates: float) -> float:
    """Seconds from the start of the training, the validations before included."""
    return run.log.wall_at(updates)


def cpu_until(run: Run, cpu: float, updates: float) -> float:
    """The same share of the run's CPU seconds *cpu* as of its updates, however busy the machine was."""
    return cpu * updates / max(record["num_updates"] for record in run.log.epochs)


CLOCKS: Dict[str, Callable[[Run, float, float], float]] = {"wall": wall_until, "cpu": cpu_until}


def rows_of(found: Sequence[Found], clock: str, slack: float) -> Tuple[float, List[Row]]:
    """The target, *slack* points below plain's, and a row for each run, its seconds by *clock* of :data:`CLOCKS`."""
    runs = {each: load_run(str(each.folder)) for each in found}
    smallest = min(each.batch for each in found)
    base = [best_of(run) for each, run in runs.items() if (each.method, each.batch) == ("plain", smallest)]
    selection = next(iter(runs.values())).selection
    target = statistics.fmean(base) - (slack if selection.maximize else -slack)
    rows = []
    for each, run in runs.items():
        updates = reached(run, target)
        scored = read_run(each.folder)
        test = {name: numbers[scored.metrics[0]] for name, numbers in scored.scores.items() if name != "valid"}
        row: Row = {**each._asdict(), "folder": str(each.folder), "valid": best_of(run), "test": test}
        seconds = CLOCKS[clock](run, scored.cpu, updates) if math.isfinite(updates) else math.inf
        row.update(updates=updates, seconds=seconds, wall_seconds=run.wall_seconds, cpu_seconds=scored.cpu)
        rows.append(row)
    return target, rows


def cells(rows: Sequence[Row]) -> Dict[Cell, List[Row]]:
    """(batch, method) → its runs, by growing batch."""
    found: Dict[Cell, List[Row]] = {}
    for row in sorted(rows, key=lambda row: row["batch"]):
        found.setdefault((row["batch"], row["method"]), []).append(row)
    return found


def markdown(target: float, rows: Sequence[Row], clock: str = "wall", slack: float = 0.0) -> str:
    """Means over seeds; times only over the seeds that reached the target, and how many those were."""
    heads = ["batch", "method", "rate", "seeds", "valid", "test", "reached", "updates", f"{clock} seconds", "speed-up"]
    lines = [heads, ["---:", "---", *["---:"] * (len(heads) - 2)]]
    grouped = cells(rows)
    base = _mean([row["seconds"] for row in next(iter(grouped.values()))])
    for (batch, method), runs in grouped.items():
        test = [100 * statistics.fmean(row["test"].values()) for row in runs]
        there = [row for row in runs if math.isfinite(row["seconds"])]
        seconds = _mean([row["seconds"] for row in there])
        times = [f"{_mean([row['updates'] for row in there]):.0f}", f"{seconds:.0f}", f"{base / seconds:.2f} ×"]
        shown = [str(batch), method, runs[0]["rate"], str(len(runs)), _spread([row["valid"] for row in runs])]
        lines.append([*shown, _spread(test), f"{len(there)}/{len(runs)}", *(times if there else ["–"] * 3)])
    below = f"{slack:g} below " if slack else ""
    head = f"Target: {target:.2f} on the validation set, {below}plain at the smallest batch.\n\n"
    return head + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.fmean(finite) if finite else math.nan


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def plot(target: float, rows: Sequence[Row], path: Path) -> None:
    """Seconds and updates to *target*, and the best validation, over the batch: lines of means, a dot for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = list(dict.fromkeys(row["method"] for row in rows))
    others = iter(COLORS)
    colors = {method: BASELINE_COLOR if method == "plain" else next(others) for method in methods}
    beside = {method: side_by_side(number, len(methods)) for number, method in enumerate(methods)}
    with pyplot.rc_context(RC):
        figure, panels = pyplot.subplots(1, len(PANELS), figsize=(10.2, 3.2))
        for axes, (key, title) in zip(panels, PANELS.items()):
            for method in methods:
                own = [row for row in rows if row["method"] == method and math.isfinite(row[key])]
                batches = sorted({row["batch"] for row in own})
                means = [_mean([row[key] for row in own if row["batch"] == batch]) for batch in batches]
                axes.plot([b * beside[method] for b in batches], means, color=colors[method], label=method)
                places = [row["batch"] * beside[method] for row in own]
                axes.scatter(places, [row[key] for row in own], s=14, color=colors[method])
            axes.set_xscale("log", base=2)
            axes.set(title=title, xlabel="rows of an update", ylabel=key)
        for axes in panels[:2]:
            axes.set_yscale("log")
            axes.set_xlim(panels[2].get_xlim())  # where some method has reached nothing, too
        panels[2].axhline(target, color=BASELINE_COLOR, linestyle="--", linewidth=1.0)
        legend_below(figure)
        figure.savefig(path)
        pyplot.close(figure)


def publish(found: Sequence[Found], output: Path, clock: str = "wall", slack: float = 0.0) -> str:
    """Write *output*.md, *output*.json (a time that was not reached is null) and *output*.png; the table."""
    target, rows = rows_of(found, clock, slack)
    table = markdown(target, rows, clock, slack)
    plain = [{k: None if v == math.inf else v for k, v in row.items()} for row in rows]
    written = json.dumps({"target": target, "clock": clock, "runs": plain}, indent=2) + "\n"
    for ending, text in ((".json", written), (".md", table)):
        write_text(output.with_name(output.name + ending), text)
    plot(target, rows, output.with_name(output.name + ".png"))
    return table
