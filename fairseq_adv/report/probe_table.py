"""The table of ``fairseq-adv probe``: what perturbations, noise and the shape of the loss did to each method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from fairseq_adv.report.runs import Run
from fairseq_adv.report.table import Cell, cell

Record = Dict[str, Any]


@dataclass(frozen=True)
class OneSeed(Cell):
    """The number of one seed with the bounds of 95 % over drawn sentences."""

    low: float
    high: float

    def text(self, decimals: int, plus_minus: str = "±") -> str:
        return f"{self.mean:.{decimals}f} [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"


@dataclass(frozen=True)
class ProbeRow:
    """One quantity (*name*, with its *decimals*) for each method."""

    name: str
    decimals: int
    cells: Dict[str, Cell]


def probed(runs: Sequence[Run]) -> List[Run]:
    return [run for run in runs if run.probe]


class Measured(NamedTuple):
    """One number of one run; *bounds* where its sentences give them."""

    name: str
    decimals: int
    value: float
    bounds: Optional[Tuple[float, float]] = None


def probe_rows(runs: Sequence[Run]) -> List[ProbeRow]:
    """Mean and deviation over the seeds of each method, a row for each thing that was measured."""
    runs = probed(runs)
    decimals: Dict[str, int] = {}
    found: Dict[Tuple[str, str], List[Measured]] = {}
    for run in runs:
        for number in _values(run.probe):
            decimals[number.name] = number.decimals
            found.setdefault((number.name, run.method), []).append(number)
    methods = list(dict.fromkeys(run.method for run in runs))
    return [
        ProbeRow(name, places, {method: _cell(found.get((name, method), [])) for method in methods})
        for name, places in decimals.items()
    ]


def _cell(numbers: Sequence[Measured]) -> Cell:
    if len(numbers) == 1 and numbers[0].bounds:
        return OneSeed(numbers[0].value, math.nan, *numbers[0].bounds)
    return cell([number.value for number in numbers])


def _values(probe: Record) -> List[Measured]:
    """Everything in one run's record."""
    values: List[Measured] = []
    for subset, found in probe.get("subsets", {}).items():
        for name, record in labelled(found):
            for key, heading, decimals in (("nll", "nll", 3), ("rise", "rise of nll", 3), ("bleu", "BLEU", 2)):
                if key in record:
                    bounds = (record["rise_low"], record["rise_high"]) if key == "rise" else None
                    values.append(Measured(f"{subset}, {name}: {heading}", decimals, record[key], bounds))
    return values + _sharpness_values(probe.get("sharpness", {}))


def labelled(found: Record) -> List[Tuple[str, Record]]:
    """(what was done to the input, scores) of one subset, the clean input first."""
    pairs = [("clean", found["clean"])] if "clean" in found else []
    for key, text in (("worst", "worst-case δ"), ("random", "random δ")):
        pairs += [(f"{text}, ‖δ‖ = {record['radius']:g}", record) for record in found.get(key, [])]
    return pairs + [(f"{r['kind']} at {r['rate']:.0%} of letters", r) for r in found.get("noise", [])]


def _sharpness_values(found: Record) -> List[Measured]:
    if not found:
        return []
    where = f"{found['sentences']} pairs of {found['subset']}"
    values = [Measured(f"{where}: nll (nats)", 3, found["nll"]), Measured(f"{where}: ‖θ‖", 1, found["parameter_norm"])]
    values.append(Measured(f"{where}: largest eigenvalue of the Hessian", 2, found["eigenvalue"]))
    values += [Measured(f"{where}: SAM's rise, ρ = {sam['rho']:g}", 4, sam["rise"]) for sam in found["sam"]]
    line = found["line"]
    rise = _mean([(losses[0] + losses[-1]) / 2 for losses in line["nll"]]) - found["nll"]
    return [*values, Measured(f"{where}: rise along random lines at ±{line['distances'][-1]:g}", 3, rise)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def rows_as_grid(rows: Sequence[ProbeRow]) -> List[List[str]]:
    """Headings and cells as text."""
    methods = list(rows[0].cells) if rows else []
    return [["", *methods], *([row.name, *(row.cells[m].text(row.decimals) for m in methods)] for row in rows)]


def rows_as_text(rows: Sequence[ProbeRow]) -> str:
    """Aligned columns for a terminal."""
    grid = rows_as_grid(rows)
    widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
    justify: List[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    return "\n".join("  ".join(j(c, w) for j, c, w in zip(justify, line, widths)).rstrip() for line in grid)


def rows_as_markdown(rows: Sequence[ProbeRow]) -> str:
    head, *body = rows_as_grid(rows)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
