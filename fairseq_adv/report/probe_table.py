"""The table of ``fairseq-adv probe``: what perturbations, noise and the shape of the loss did to each method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

from fairseq_adv.report.runs import Run
from fairseq_adv.report.table import Cell, cell

Record = Dict[str, Any]


@dataclass(frozen=True)
class ProbeRow:
    """One quantity (*name*, with its *decimals*) for each method."""

    name: str
    decimals: int
    cells: Dict[str, Cell]


def probed(runs: Sequence[Run]) -> List[Run]:
    return [run for run in runs if run.probe]


def probe_rows(runs: Sequence[Run]) -> List[ProbeRow]:
    """Mean and deviation over the seeds of each method, a row for each thing that was measured."""
    runs = probed(runs)
    names: Dict[Tuple[str, int], None] = {}
    found: Dict[Tuple[str, str], List[float]] = {}
    for run in runs:
        for name, decimals, value in _values(run.probe):
            names[(name, decimals)] = None
            found.setdefault((name, run.method), []).append(value)
    methods = list(dict.fromkeys(run.method for run in runs))
    return [
        ProbeRow(name, decimals, {method: cell(found.get((name, method), [])) for method in methods})
        for name, decimals in names
    ]


def _values(probe: Record) -> List[Tuple[str, int, float]]:
    """(name, decimals, value) of everything in one run's record."""
    values: List[Tuple[str, int, float]] = []
    for subset, found in probe.get("subsets", {}).items():
        for name, record in labelled(found):
            for key, heading, decimals in (("nll", "nll", 3), ("bleu", "BLEU", 2)):
                if key in record:
                    values.append((f"{subset}, {name}: {heading}", decimals, record[key]))
    return values + _sharpness_values(probe.get("sharpness", {}))


def labelled(found: Record) -> List[Tuple[str, Record]]:
    """(what was done to the input, scores) of one subset, the clean input first."""
    pairs = [("clean", found["clean"])] if "clean" in found else []
    for key, text in (("worst", "worst-case δ"), ("random", "random δ")):
        pairs += [(f"{text}, ‖δ‖ = {record['radius']:g}", record) for record in found.get(key, [])]
    return pairs + [(f"{r['kind']} at {r['rate']:.0%} of letters", r) for r in found.get("noise", [])]


def _sharpness_values(found: Record) -> List[Tuple[str, int, float]]:
    if not found:
        return []
    where = f"{found['sentences']} pairs of {found['subset']}"
    values = [(f"{where}: nll (nats)", 3, found["nll"]), (f"{where}: ‖θ‖", 1, found["parameter_norm"])]
    values.append((f"{where}: largest eigenvalue of the Hessian", 2, found["eigenvalue"]))
    values += [(f"{where}: SAM's rise, ρ = {sam['rho']:g}", 4, sam["rise"]) for sam in found["sam"]]
    line = found["line"]
    rise = _mean([(losses[0] + losses[-1]) / 2 for losses in line["nll"]]) - found["nll"]
    values.append((f"{where}: rise along random lines at ±{line['distances'][-1]:g}", 3, rise))
    return values


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
