"""What a method costs beside the baseline: how far it is at the baseline's time, and when it reaches its best.

Both read the metric that chose the run's checkpoint on the validation set (``--best-checkpoint-metric``), at the wall
time of the training, validations included. A budget in epochs gives a slower method more time; these two numbers
tell what is left of a difference when it is not.
"""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

from fairseq_adv.report.runs import Run


def best_so_far(run: Run) -> List[Tuple[float, float]]:
    """(seconds since the start, best value of the selection's metric by then) after each validation."""
    better = max if run.selection.maximize else min
    curve: List[Tuple[float, float]] = []
    for record in run.log.validations:
        value = record.get(run.selection.metric, math.nan)
        if math.isfinite(value):
            best = better(value, curve[-1][1]) if curve else value
            curve.append((run.log.wall_at(record["num_updates"]), best))
    return curve


def value_at_time(run: Run, baseline: Run) -> float:
    """*run*'s best value by the time that *baseline*'s whole training took; NaN where it had none by then."""
    if not _comparable(run, baseline):
        return math.nan
    values = [value for seconds, value in best_so_far(run) if seconds <= baseline.wall_seconds]
    return values[-1] if values else math.nan


def seconds_to_best(run: Run, baseline: Run) -> float:
    """When *run* first was as good as *baseline*'s best; infinite where it never was, NaN where no log tells."""
    theirs = best_so_far(baseline)
    if not _comparable(run, baseline) or not theirs:
        return math.nan
    goal, sign = theirs[-1][1], 1.0 if run.selection.maximize else -1.0
    return next((seconds for seconds, value in best_so_far(run) if sign * value >= sign * goal), math.inf)


def pairs_of_seeds(runs: Sequence[Run], baselines: Sequence[Run]) -> List[Tuple[Run, Run]]:
    """Each of *runs* with the baseline of its seed, where there is one."""
    by_seed = {run.seed: run for run in baselines}
    return [(run, by_seed[run.seed]) for run in runs if run.seed in by_seed]


def _comparable(run: Run, baseline: Run) -> bool:
    mine, theirs = run.selection, baseline.selection
    return (mine.metric, mine.maximize) == (theirs.metric, theirs.maximize)
