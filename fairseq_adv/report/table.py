"""The table of results: one row for each method, mean ± standard deviation over its seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence

from fairseq_adv.report.price import pairs_of_seeds, seconds_to_best, value_at_time
from fairseq_adv.report.runs import Run


@dataclass(frozen=True)
class Column:
    """A number of a run: its key in JSON, its heading, its decimals, and how to get it (NaN when unknown)."""

    key: str
    heading: str
    decimals: int
    value: Callable[[Run], float]


def _score(key: str) -> Callable[[Run], float]:
    return lambda run: float(run.score.get(key, math.nan))


def _validation(key: str) -> Callable[[Run], float]:
    return lambda run: (run.best_validation or {}).get(key, math.nan)


COLUMNS = (
    Column("bleu", "BLEU", 2, _score("bleu")),
    Column("chrf", "chrF", 2, _score("chrf")),
    Column("tokenized_bleu", "tok. BLEU", 2, _score("tokenized_bleu")),
    Column("brevity_ratio", "brevity ratio", 3, _score("brevity_ratio")),
    Column("lenpen", "length penalty", 1, _score("lenpen")),
    Column("valid_nll", "valid nll", 3, _validation("nll_loss")),
    Column("best_epoch", "best epoch", 0, _validation("epoch")),
    Column("wall_minutes", "minutes", 1, lambda run: run.wall_seconds / 60),
)


@dataclass(frozen=True)
class Cell:
    """Mean over the seeds that have the number, and their sample standard deviation (NaN for one seed)."""

    mean: float
    deviation: float

    def text(self, decimals: int, plus_minus: str = "±") -> str:
        if math.isnan(self.mean):
            return "–"
        if math.isnan(self.deviation):
            return f"{self.mean:.{decimals}f}"
        return f"{self.mean:.{decimals}f} {plus_minus} {self.deviation:.{decimals}f}"


@dataclass(frozen=True)
class Row:
    method: str
    seeds: List[int]
    cells: Dict[str, Cell]
    relative_time: float  # wall time of an epoch / that of the baseline's
    metric: str  # what chose the checkpoints, on the validation set
    at_baseline_time: Cell  # its best value by the time of the baseline's whole training
    minutes_to_best: List[float]  # seed by seed, to the baseline's best value; infinite where it never was

    def minutes_text(self, plus_minus: str = "±") -> str:
        """Mean over the seeds, how many of them where some never got there, ``never`` where none did."""
        known = [minutes for minutes in self.minutes_to_best if not math.isnan(minutes)]
        reached = [minutes for minutes in known if math.isfinite(minutes)]
        if not reached:
            return "never" if known else "–"
        text = cell(reached).text(1, plus_minus)
        return text if len(reached) == len(known) else f"{text} ({len(reached)} of {len(known)} seeds)"


def result_rows(runs: Sequence[Run]) -> List[Row]:
    """The baseline (plain, or else the first method), then the others in the order in which they first appear."""
    methods = list(dict.fromkeys(run.method for run in runs))
    baseline = baseline_of(methods)
    methods.sort(key=lambda method: method != baseline)
    times = {method: cell([r.seconds_per_epoch for r in runs if r.method == method]).mean for method in methods}
    return [_row([run for run in runs if run.method == method], runs, baseline, times) for method in methods]


def _row(mine: Sequence[Run], runs: Sequence[Run], baseline: str, times: Dict[str, float]) -> Row:
    method = mine[0].method
    pairs = pairs_of_seeds(mine, [run for run in runs if run.method == baseline])
    return Row(
        method,
        sorted(run.seed for run in mine),
        {column.key: cell([column.value(run) for run in mine]) for column in COLUMNS},
        times[method] / times[baseline],
        mine[0].selection.metric,
        cell([value_at_time(run, theirs) for run, theirs in pairs]),
        [seconds_to_best(run, theirs) / 60 for run, theirs in pairs],
    )


def baseline_of(methods: Sequence[str]) -> str:
    return "plain" if "plain" in methods else methods[0]


def cell(values: Sequence[float]) -> Cell:
    """Mean and deviation of the finite *values*."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Cell(math.nan, math.nan)
    return Cell(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else math.nan)


def text_grid(rows: Sequence[Row], plus_minus: str = "±", times: str = "×") -> List[List[str]]:
    """Headings and cells as text; a column that no run has is left out."""
    columns = [c for c in COLUMNS if any(not math.isnan(row.cells[c.key].mean) for row in rows)]
    several = any(len(row.seeds) > 1 for row in rows)
    baseline = baseline_of([row.method for row in rows])
    price = [
        f"epoch time / {baseline}",
        f"valid {rows[0].metric} at {baseline}'s time",
        f"minutes to {baseline}'s best",
    ]
    grid = [["method", *(["seeds"] if several else []), *(c.heading for c in columns), *price]]
    for row in rows:
        cells = [row.cells[c.key].text(c.decimals, plus_minus) for c in columns]
        ratio = "–" if math.isnan(row.relative_time) else f"{row.relative_time:.2f}{times}"
        cells += [ratio, row.at_baseline_time.text(2, plus_minus), row.minutes_text(plus_minus)]
        grid.append([row.method, *([str(len(row.seeds))] if several else []), *cells])
    return grid


def to_text(rows: Sequence[Row]) -> str:
    """Aligned columns for a terminal."""
    grid = text_grid(rows)
    widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
        for line in grid
    )


def to_markdown(rows: Sequence[Row]) -> str:
    head, *body = text_grid(rows)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def to_latex(rows: Sequence[Row]) -> str:
    """A ``tabular`` with the rules of the booktabs package."""
    escape = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "–": "--"})
    head, *body = [[cell.translate(escape) for cell in line] for line in text_grid(rows, r"$\pm$", r"$\times$")]
    lines = [
        r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def to_json(rows: Sequence[Row]) -> List[Dict[str, object]]:
    """Plain data; unknown numbers are null."""

    def known(value: float) -> object:
        return value if math.isfinite(value) else None

    result = []
    for row in rows:
        entry: Dict[str, object] = {
            "method": row.method,
            "seeds": row.seeds,
            "relative_time": known(row.relative_time),
            "valid_metric": row.metric,
            "valid_at_baseline_time": known(row.at_baseline_time.mean),
            "minutes_to_baseline_best": [known(minutes) for minutes in row.minutes_to_best],
        }
        for key, cell in row.cells.items():
            entry[key] = known(cell.mean)
            entry[f"{key}_sd"] = known(cell.deviation)
        result.append(entry)
    return result
