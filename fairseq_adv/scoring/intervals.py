"""How far a number on a test set can be trusted: intervals by the bootstrap over sentences (Koehn 2004)."""

from __future__ import annotations

from typing import Any, Sequence, Tuple

RESAMPLING_SEED = 12345  # sacreBLEU's own for its tests
LEVEL = 0.95


def difference_interval(
    metric: Any, baseline: Sequence[str], system: Sequence[str], references: Sequence[str], samples: int
) -> Tuple[float, float]:
    """The bounds that the central 95 % of differences *system* − *baseline* lie in, over resampled test sentences.

    *metric* is a BLEU or CHRF of sacreBLEU; a score of a sample is the corpus score of its sentences, drawn with
    replacement and the same for both systems.
    """
    import numpy as np

    counts = [np.array(metric._extract_corpus_statistics(list(one), [list(references)])) for one in (baseline, system)]
    drawn = np.random.default_rng(RESAMPLING_SEED)
    differences = []
    for _ in range(samples):
        rows = drawn.integers(0, len(references), len(references))
        one, other = (metric._compute_score_from_stats(count[rows].sum(axis=0).tolist()).score for count in counts)
        differences.append(other - one)
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(differences, [outside, 1 - outside])
    return float(low), float(high)


def ratio_interval(sums: Sequence[float], counts: Sequence[float], samples: int = 1000) -> Tuple[float, float]:
    """The bounds that the central 95 % of Σ *sums* / Σ *counts* lie in, over sentences drawn with replacement."""
    import numpy as np

    drawn = np.random.default_rng(RESAMPLING_SEED)
    rows = drawn.integers(0, len(counts), (samples, len(counts)))  # samples x sentences
    ratios = np.asarray(sums)[rows].sum(axis=1) / np.asarray(counts)[rows].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
