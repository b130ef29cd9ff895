"""The tables and figures of ``fairseq-adv reproduce`` out of runs that were trained and scored."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from fairseq_adv.experiments.grid_corpora import Variant
from fairseq_adv.papers.results import Result
from fairseq_adv.report.figures import gradient_norm
from fairseq_adv.report.parameter_study import parameter_study
from fairseq_adv.report.runs import Run, load_run
from fairseq_adv.report.style import RC
from fairseq_adv.report.table import cell
from fairseq_adv.whole_files import write_bytes, write_text

Cells = Sequence[Tuple[Variant, int, Path]]
Number = Callable[[Run], float]
_SET = re.compile(r"\| INFO \| (train|valid|test) \| (\{.*\})\s*$")


def _score(key: str) -> Number:
    return lambda run: float(run.score.get(key, math.nan))


def _nll(run: Run) -> float:
    return (run.best_validation or {}).get("nll_loss", math.nan)


def set_value(run: Run, subset: str, key: str) -> float:
    """A number of ``losses.log``, the output of fairseq-validate."""
    path = run.folder / "losses.log"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        match = _SET.search(line)
        if match and match[1] == subset:
            return float(json.loads(match[2]).get(f"{subset}_{key}", math.nan))
    return math.nan


def gap(key: str) -> Number:
    """Training less test set for accuracy, test less training set for the loss: what training has over new text."""
    sign = 1.0 if key == "accuracy" else -1.0
    return lambda run: sign * (set_value(run, "train", key) - set_value(run, "test", key))


def gradient_variance(run: Run) -> float:
    """The variance of ‖g‖ over the updates of the second half of training (one record each with --log-interval 1)."""
    updates, norms = run.log.series(run.log.updates, "gnorm")
    late = [norm for update, norm in zip(updates, norms) if update > updates[-1] / 2] if updates else []
    return statistics.variance(late) if len(late) > 1 else math.nan


def gradient_mean(run: Run) -> float:
    """The mean of ‖g‖ over the same updates."""
    updates, norms = run.log.series(run.log.updates, "gnorm")
    late = [norm for update, norm in zip(updates, norms) if update > updates[-1] / 2] if updates else []
    return statistics.mean(late) if late else math.nan


Column = Tuple[str, int, Number]
SCORES: Tuple[Column, ...] = (
    ("BLEU", 2, _score("tokenized_bleu")),
    ("sacreBLEU", 2, _score("bleu")),
    ("valid nll", 3, _nll),
    ("minutes", 1, lambda run: run.wall_seconds / 60),
)
COLUMNS: Dict[str, Tuple[Column, ...]] = {
    "scores": SCORES,
    "study": SCORES,
    "batches": SCORES,
    "gradients": (("mean of ‖g‖", 3, gradient_mean), ("variance of ‖g‖", 4, gradient_variance)),
    "gap": (
        ("training accuracy", 1, lambda run: set_value(run, "train", "accuracy")),
        ("test accuracy", 1, lambda run: set_value(run, "test", "accuracy")),
        ("gap", 1, gap("accuracy")),
        ("training nll", 3, lambda run: set_value(run, "train", "nll_loss")),
        ("test nll", 3, lambda run: set_value(run, "test", "nll_loss")),
        ("gap in nll", 3, gap("nll_loss")),
    ),
}


def table(result: Result, runs: Sequence[Run]) -> str:
    """A line for each variant: mean ± deviation over its seeds."""
    columns = COLUMNS[result.show]
    lines = ["| variant | seeds | " + " | ".join(name for name, _, _ in columns) + " |"]
    lines.append("|---|---:|" + "---:|" * len(columns))
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method]
        cells = [cell([number(run) for run in mine]).text(decimals) for _, decimals, number in columns]
        lines.append(f"| {method} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(result: Result, runs: Sequence[Run]) -> Optional[Any]:
    """The plot of a study, of gradients, or of a table over batches; ``None`` for a table alone."""
    if result.show == "study":
        return parameter_study(runs, only=result.option)
    if result.show == "gradients":
        return gradient_norm(runs)
    return over_batches(runs) if result.show == "batches" else None


def over_batches(runs: Sequence[Run]) -> Optional[Any]:
    """sacreBLEU and validation nll against the factor of the batch, a line for each variant without its -xN."""
    from matplotlib import pyplot

    figure, all_axes = pyplot.subplots(1, 2, figsize=(9.2, 3.3))
    for axes, (name, number) in zip(all_axes, (("sacreBLEU", _score("bleu")), ("validation nll", _nll))):
        lines: Dict[str, Dict[int, List[float]]] = {}
        for run in runs:
            variant, _, factor = run.method.rpartition("-x")
            lines.setdefault(variant, {}).setdefault(int(factor), []).append(number(run))
        for variant, points in lines.items():
            cells = [cell(points[factor]) for factor in sorted(points)]
            errors = [0.0 if math.isnan(c.deviation) else c.deviation for c in cells]
            axes.errorbar(sorted(points), [c.mean for c in cells], yerr=errors, fmt="o-", capsize=3, label=variant)
        axes.set(title=name, xlabel="batch / base batch", xscale="log")
    all_axes[1].legend(fontsize=8)
    return figure


def publish(result: Result, cells: Cells, folder: Path) -> str:
    """Write NAME.md and, where there is one, NAME.png into *folder*; what is printed."""
    runs = [load_run(f"{variant.name}={path}") for variant, _, path in cells if (path / "score.json").is_file()]
    if not runs:
        return f"{result.name}: no run was scored\n"
    folder.mkdir(parents=True, exist_ok=True)
    text = table(result, runs)
    write_text(folder / f"{result.name}.md", text)
    image = _png(result, runs)
    if image:
        write_bytes(folder / f"{result.name}.png", image)
    return f"\n{result.name}: {result.what} ({folder})\n\n{text}"


def _png(result: Result, runs: Sequence[Run]) -> bytes:
    import io

    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot

    with pyplot.rc_context(RC):
        drawn = figure(result, runs)
        if drawn is None:
            return b""
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", metadata={"Software": None})
        pyplot.close(drawn)
    return buffer.getvalue()
