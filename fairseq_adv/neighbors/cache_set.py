"""The cache set X of ARCH: the share of the training pairs whose perturbations are stored."""

from __future__ import annotations

from typing import Optional

import numpy as np

from fairseq_adv.neighbors.counter_hash import hash_counters

_STREAM = 1  # of the hash; random lists use another one


def choose_cache_set(
    num_samples: int, proportion: float, seed: int, trained: Optional[np.ndarray] = None
) -> np.ndarray:
    """Ids (int64, ascending) of a random *proportion*, in (0, 1], of *num_samples* pairs; at least one pair.

    Only pairs that are *trained* (bool, ``num_samples``; default: all) are counted and chosen. The set depends on the
    arguments alone, whatever the machine or the version of numpy, and a larger proportion gives a superset.
    """
    ids = np.arange(num_samples, dtype=np.int64) if trained is None else np.flatnonzero(trained)
    if len(ids) < 1:
        raise ValueError(f"a cache set needs training pairs, but of {num_samples} in the data set none is trained")
    if not 0 < proportion <= 1:
        raise ValueError(f"the proportion of cached pairs must be in (0, 1], got {proportion}")
    size = max(1, round(proportion * len(ids)))
    if size >= len(ids):
        return ids
    draws = hash_counters(ids, seed, _STREAM)
    return np.sort(ids[np.argpartition(draws, size)[:size]]).astype(np.int64)
