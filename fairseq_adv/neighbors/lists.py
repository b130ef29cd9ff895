"""Neighbour lists: which K cached sentences stand in for a sentence, for the source and the target side."""

from __future__ import annotations

from typing import Dict, Mapping

import numpy as np

SIDES = ("src", "tgt")


class Neighbors:
    """The cache set of a data set and, for each of its sentences, K members of that set for either side.

    ``num_samples``: pairs in the training split; ``cache_ids``: ids of the cached pairs (int64, ascending);
    ``num_neighbors``: K; ``source``: side -> where the word embeddings of the search came from.
    """

    def __init__(self, num_samples: int, cache_ids: np.ndarray, num_neighbors: int, source: Mapping[str, str]) -> None:
        self.num_samples = num_samples
        self.cache_ids = cache_ids
        self.num_neighbors = num_neighbors
        self.source: Dict[str, str] = dict(source)

    def is_cached(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of *ids* is in the cache set (bool, the shape of *ids*)."""
        ids = self._checked(ids)
        places = np.minimum(np.searchsorted(self.cache_ids, ids), len(self.cache_ids) - 1)
        return self.cache_ids[places] == ids

    def lookup(self, ids: np.ndarray, side: str) -> np.ndarray:
        """Neighbours ``n x K`` (int64) of *ids* (``n``), nearest first.

        All are members of the cache set. The list of a member names itself only if the set has no K others, and
        then in its last column.
        """
        if side not in SIDES:
            raise ValueError(f"unknown side {side!r}: choose one of {', '.join(SIDES)}")
        return self._lists(self._checked(ids), side)

    def _lists(self, ids: np.ndarray, side: str) -> np.ndarray:
        raise NotImplementedError

    def _checked(self, ids: np.ndarray) -> np.ndarray:
        ids = np.asarray(ids, dtype=np.int64)
        outside = ids[(ids < 0) | (ids >= self.num_samples)]
        if len(outside):
            raise ValueError(
                f"sample id {outside[0]} is beyond the data set of these neighbors, which has {self.num_samples} pairs"
            )
        return ids


class StoredNeighbors(Neighbors):
    """Neighbour lists held in memory: side -> ``num_samples x K`` (int32)."""

    def __init__(
        self, num_samples: int, cache_ids: np.ndarray, lists: Mapping[str, np.ndarray], source: Mapping[str, str]
    ) -> None:
        super().__init__(num_samples, cache_ids, next(iter(lists.values())).shape[1], source)
        self._arrays = dict(lists)

    def _lists(self, ids: np.ndarray, side: str) -> np.ndarray:
        return self._arrays[side][ids].astype(np.int64)


def check_num_neighbors(num_neighbors: int, cache_size: int) -> None:
    """Refuse a K that is no count, or larger than the cache set."""
    if num_neighbors < 1:
        raise ValueError(f"the number of neighbors must be >= 1, got {num_neighbors}")
    if num_neighbors > cache_size:
        raise ValueError(
            f"{num_neighbors} neighbors asked for, but only {cache_size} pairs are cached: "
            "raise the proportion of cached pairs or lower the number of neighbors"
        )
