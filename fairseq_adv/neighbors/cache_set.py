"""The cache set X of ARCH: the share of the training pairs whose perturbations are stored."""

from __future__ import annotations

import numpy as np

from fairseq_adv.neighbors.counter_hash import hash_counters

_STREAM = 1  # of the hash; random lists use another one


def choose_cache_set(num_samples: int, proportion: float, seed: int) -> np.ndarray:
    """Ids (int64, ascending) of a random *proportion*, in (0, 1], of *num_samples* pairs; at least one pair.

    The set depends on the three arguments alone, whatever the machine or the version of numpy, and a larger
    proportion gives a superset.
    """
    if num_samples < 1:
        raise ValueError(f"a cache set needs training pairs, but the data set has {num_samples}")
    if not 0 < proportion <= 1:
        raise ValueError(f"the proportion of cached pairs must be in (0, 1], got {proportion}")
    size = max(1, round(proportion * num_samples))
    if size >= num_samples:
        return np.arange(num_samples, dtype=np.int64)
    draws = hash_counters(np.arange(num_samples), seed, _STREAM)
    return np.sort(np.argpartition(draws, size)[:size]).astype(np.int64)
