"""One option at a time against quality, as in ARCH's Figure 2: mean and deviation over seeds, SMART's level beside."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from fairseq_adv.report.runs import Run, method_of
from fairseq_adv.report.style import BASELINE_COLOR, legend_below, method_colors

STUDIED = {
    "cache_ema": "EMA α",
    "cache_interval": "refresh interval Tc (epochs)",
    "cache_num_neighbors": "neighbours K",
    "cache_proportion": "cached proportion",
    "adv_eps": "radius ε",
    "adv_lambda": "weight λ",
    "adv_start_update": "start (updates)",
    "conadv_alpha": "ConAdv's radius α",
    "disadv_alpha": "DisAdv's radius α",
}
RANDOM_NEIGHBORS = "R-"  # the paper's name for a random neighbour, before K
REFERENCES = (("smart", "--"), ("plain", ":"))  # methods whose level is drawn as a line

Values = Dict[str, object]


@dataclass(frozen=True)
class Study:
    """One option of one criterion: (what the axis says, the runs there), in the axis's order."""

    option: str
    criterion: str
    points: List[Tuple[str, List[Run]]]


def _criterion(run: Run) -> str:
    return method_of(str(run.log.options.get("criterion", {}).get("_name", run.method)))


def _number(value: object) -> Optional[float]:
    """*value* as a number, ``None`` where it is none: ``--adv-start-update`` is text, and may be auto."""
    try:
        return float(str(value))
    except ValueError:
        return None


def _values(run: Run) -> Values:
    """The studied options of a run, and whether its neighbours are random."""
    options = run.log.options.get("criterion", {})
    found: Values = {name: number for name in STUDIED if (number := _number(options.get(name))) is not None}
    if "cache_num_neighbors" in found:
        found["random_neighbors"] = not options.get("cache_neighbors")
    return found


def studies(runs: Sequence[Run]) -> List[Study]:
    """Every option in which runs of one criterion differ from its most frequent setting, one option at a time."""
    groups: Dict[str, List[Run]] = {}
    for run in runs:
        groups.setdefault(_criterion(run), []).append(run)
    found = []
    for criterion, members in groups.items():
        settings = [_values(run) for run in members]
        base = dict(Counter(tuple(sorted(values.items())) for values in settings).most_common(1)[0][0])
        for option in STUDIED:
            places = _places(option, base, members, settings)
            if len(places) > 1:
                found.append(Study(option, criterion, places))
    return sorted(found, key=lambda study: list(STUDIED).index(study.option))


def _places(option: str, base: Values, members: List[Run], settings: List[Values]) -> List[Tuple[str, List[Run]]]:
    """The runs that differ from *base* in *option* at most, by its value; random neighbours are a K of their own."""
    free = {option, "random_neighbors"} if option == "cache_num_neighbors" else {option}
    places: Dict[Tuple[bool, float], List[Run]] = {}
    for run, values in zip(members, settings):
        if option in values and all(values.get(name) == base.get(name) for name in {*values, *base} - free):
            is_random = bool(values.get("random_neighbors")) and option == "cache_num_neighbors"
            places.setdefault((is_random, float(str(values[option]))), []).append(run)
    if len({is_random for is_random, _ in places}) == 1:  # nothing to tell apart
        return [(f"{value:g}", places[key]) for key, value in sorted((key, key[1]) for key in places)]
    return [
        (f"{RANDOM_NEIGHBORS if is_random else ''}{value:g}", places[is_random, value])
        for is_random, value in sorted(places)
    ]


def _bleu(run: Run) -> float:
    return float(run.score.get("bleu", math.nan))


def _nll(run: Run) -> float:
    return (run.best_validation or {}).get("nll_loss", math.nan)


QUALITIES: Tuple[Tuple[str, Callable[[Run], float]], ...] = (("BLEU", _bleu), ("validation nll", _nll))


def parameter_study(runs: Sequence[Run], only: Optional[str] = None) -> Optional[Any]:
    """A column for each option; a row for BLEU and one for the nll of the best checkpoint, where they are known."""
    from matplotlib import pyplot

    found = [study for study in studies(runs) if only in (None, study.option)]
    qualities = [q for q in QUALITIES if any(math.isfinite(q[1](run)) for run in runs)]
    if not found or not qualities:
        return None
    size = (3.4 * len(found), 2.9 * len(qualities))
    figure, grid = pyplot.subplots(len(qualities), len(found), figsize=size, squeeze=False)
    for row, (name, quality) in zip(grid, qualities):
        for axes, study in zip(row, found):
            _draw(axes, study, quality, runs)
            axes.set(title=STUDIED[study.option], ylabel=name if axes is row[0] else "")
    legend_below(figure)
    return figure


def _draw(axes: Any, study: Study, quality: Callable[[Run], float], runs: Sequence[Run]) -> None:
    means, errors = zip(*(_mean_and_deviation(quality, there) for _, there in study.points))
    color = method_colors(runs).get(study.criterion, "#0072b2")
    places = range(len(means))
    axes.errorbar(places, means, yerr=errors, fmt="o-", color=color, capsize=3, markersize=4, label=study.criterion)
    axes.set_xticks(places, [label for label, _ in study.points])
    for method, dashes in REFERENCES:
        level, _ = _mean_and_deviation(quality, [run for run in runs if run.method == method])
        if math.isfinite(level) and study.criterion != method:
            color = method_colors(runs).get(method, BASELINE_COLOR)
            axes.axhline(level, linestyle=dashes, color=color, linewidth=1.2, label=method)


def _mean_and_deviation(quality: Callable[[Run], float], runs: Sequence[Run]) -> Tuple[float, float]:
    """Mean and sample deviation over the runs that have the number; the deviation of one is 0."""
    values = [value for value in map(quality, runs) if math.isfinite(value)]
    if not values:
        return math.nan, 0.0
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
