"""Random neighbours: the paper's ablation R-1-NN, and what a run without a neighbour file falls back on."""

from __future__ import annotations

import numpy as np

from fairseq_adv.neighbors.cache_set import choose_cache_set
from fairseq_adv.neighbors.counter_hash import hash_counters
from fairseq_adv.neighbors.lists import SIDES, Neighbors, check_num_neighbors

_STREAM = 2  # of the hash; the cache set uses another one


def random_neighbors(num_samples: int, proportion: float, num_neighbors: int, seed: int) -> Neighbors:
    """Uniformly drawn neighbours, K = *num_neighbors* different ones for each sentence and side.

    The cache set is that of :func:`choose_cache_set`. Lists are drawn when they are looked up, so nothing but the
    cache set is held; a sentence has the same list every time, and a smaller K gives the first of a larger one.
    """
    return RandomNeighbors(num_samples, choose_cache_set(num_samples, proportion, seed), num_neighbors, seed)


class RandomNeighbors(Neighbors):
    """Lists drawn from a given cache set by a hash of (seed, side, column, sample id)."""

    def __init__(self, num_samples: int, cache_ids: np.ndarray, num_neighbors: int, seed: int) -> None:
        check_num_neighbors(num_neighbors, len(cache_ids))
        super().__init__(num_samples, cache_ids, num_neighbors, dict.fromkeys(SIDES, "random"))
        self.seed = seed

    def _lists(self, ids: np.ndarray, side: str) -> np.ndarray:
        """Draw without replacement: column k is one of the places in the cache set that are still free."""
        cached = self.is_cached(ids)
        own = np.searchsorted(self.cache_ids, ids)
        # places that may not be drawn again, ascending; for an uncached sentence one beyond the end
        taken = np.where(cached, own, len(self.cache_ids))[:, None]
        columns = []
        for column in range(self.num_neighbors):
            free = len(self.cache_ids) - column - cached
            bits = hash_counters(ids, self.seed, _STREAM, SIDES.index(side), column)
            place = _nth_free((bits % np.maximum(free, 1).astype(np.uint64)).astype(np.int64), taken)
            columns.append(np.where(free > 0, place, own))
            taken = np.sort(np.concatenate([taken, columns[-1][:, None]], axis=1), axis=1)
        return self.cache_ids[np.stack(columns, axis=1)]


def _nth_free(rank: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The place that has *rank* (``n``, from 0) among those not in *taken* (``n x t``, ascending rows)."""
    place = rank.copy()
    for column in taken.T:
        place += place >= column
    return place
