"""Do two systems differ on the rows of a test set? The paired bootstrap over rows, for metrics of predictions."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Sequence

from fairseq_adv.scoring.intervals import LEVEL, RESAMPLING_SEED
from fairseq_adv.scoring.sentence_metrics import sentence_scores


class Difference(NamedTuple):
    """System − baseline, the bounds of the central 95 % of resampled differences, and the share beyond zero, twice."""

    value: float
    low: float
    high: float
    p: float


def row_difference(
    metric: str,
    baseline: Sequence[Sequence[float]],
    system: Sequence[Sequence[float]],
    targets: Sequence[float],
    samples: int = 1000,
) -> Difference:
    """The mean difference over seeds; *baseline* and *system* hold the predictions of one training for each seed.

    Each sample draws rows with replacement, the same for all trainings. It tells whether the difference would hold on
    other rows, not whether it would for other seeds. NaN where a score is not defined (see
    :func:`~fairseq_adv.scoring.sentence_metrics.sentence_scores`).
    """
    import numpy as np

    one, other, truth = np.array(baseline), np.array(system), np.array(targets)

    def mean_difference(rows: Any) -> float:
        values: List[float] = []
        for before, after in zip(one, other):
            scores = [sentence_scores([metric], p[rows], truth[rows])[metric] for p in (before, after)]
            values.append(scores[1] - scores[0])
        return float(np.mean(values))

    drawn = np.random.default_rng(RESAMPLING_SEED)
    every = np.arange(len(truth))
    found = np.array([mean_difference(drawn.choice(every, len(every))) for _ in range(samples)])
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(found, [outside, 1 - outside])
    p = min(1.0, 2 * min((found <= 0).mean(), (found >= 0).mean())) if np.isfinite(found).all() else np.nan
    return Difference(mean_difference(every), float(low), float(high), float(p))


def seed_p_value(baseline: Sequence[float], system: Sequence[float]) -> float:
    """The paired t-test's two-sided p over seeds; NaN for fewer than two, or equal differences."""
    from scipy import stats

    differences = {after - before for before, after in zip(baseline, system)}
    return float(stats.ttest_rel(system, baseline).pvalue) if len(differences) > 1 else float("nan")
