"""Random neighbours: the paper's ablation R-1-NN, and what a run without a neighbour file falls back on."""

from __future__ import annotations

from typing import Optional

import numpy as np

from fairseq_adv.neighbors.cache_set import choose_cache_set
from fairseq_adv.neighbors.counter_hash import hash_counters
from fairseq_adv.neighbors.lists import SIDES, Neighbors, check_num_neighbors

_STREAM = 2  # of the hash; the cache set uses another one
_FURTHER = 8  # columns beyond K, drawn where one of the K is not in the cache after all


def random_neighbors(
    num_samples: int, proportion: float, num_neighbors: int, seed: int, trained: Optional[np.ndarray] = None
) -> Neighbors:
    """Uniformly drawn neighbours, K = *num_neighbors* different ones for each sentence and side.

    The cache set is that of :func:`choose_cache_set`, among the pairs *trained* (bool, ``num_samples``; default: all).
    Lists are drawn when they are looked up, so nothing but the cache set is held; a sentence has the same list every
    time, and a smaller K gives the first of a larger one.
    """
    cache_ids = choose_cache_set(num_samples, proportion, seed, trained)
    return RandomNeighbors(num_samples, cache_ids, num_neighbors, seed, proportion)


class RandomNeighbors(Neighbors):
    """Lists drawn from a given cache set by a hash of (seed, side, column, sample id)."""

    def __init__(
        self,
        num_samples: int,
        cache_ids: np.ndarray,
        num_neighbors: int,
        seed: int,
        proportion: Optional[float] = None,
    ) -> None:
        check_num_neighbors(num_neighbors, len(cache_ids))
        columns = min(num_neighbors + _FURTHER, len(cache_ids))
        sources = dict.fromkeys(SIDES, "random")
        super().__init__(num_samples, cache_ids, num_neighbors, sources, columns, proportion, seed)
        self._draw_seed = seed

    def _lists(self, ids: np.ndarray, side: str, columns: int) -> np.ndarray:
        """Draw without replacement: column k is one of the places in the cache set that are still free."""
        cached = self.is_cached(ids)
        own = np.searchsorted(self.cache_ids, ids)
        # places that may not be drawn again, ascending; for an uncached sentence one beyond the end
        taken = np.where(cached, own, len(self.cache_ids))[:, None]
        places = []
        for column in range(columns):
            free = len(self.cache_ids) - column - cached
            bits = hash_counters(ids, self._draw_seed, _STREAM, SIDES.index(side), column)
            place = _nth_free((bits % np.maximum(free, 1).astype(np.uint64)).astype(np.int64), taken)
            places.append(np.where(free > 0, place, own))
            taken = np.sort(np.concatenate([taken, places[-1][:, None]], axis=1), axis=1)
        return self.cache_ids[np.stack(places, axis=1)]


def _nth_free(rank: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The place that has *rank* (``n``, from 0) among those not in *taken* (``n x t``, ascending rows)."""
    place = rank.copy()
    for column in taken.T:
        place += place >= column
    return place
