"""Neighbour lists: which K cached sentences stand in for a sentence, for the source and the target side."""

from __future__ import annotations

from typing import Callable, Dict, Mapping, NamedTuple, Optional

import numpy as np

SIDES = ("src", "tgt")


class Available(NamedTuple):
    """The K nearest neighbours that are there: ids (``n x K``, int64), and where one was found (``n x K``, bool).

    ``further`` (``n``, bool) marks the sentences one of whose K nearest is missing.
    """

    ids: np.ndarray
    found: np.ndarray
    further: np.ndarray


class Neighbors:
    """The cache set of a data set and, for each of its sentences, K members of that set for either side.

    ``num_samples``: pairs in the training split; ``cache_ids``: ids of the cached pairs (int64, ascending);
    ``num_neighbors``: K; ``num_candidates``: K and those beyond that may stand in for a missing one; ``source``: side
    -> where the word embeddings of the search came from; ``proportion`` and ``seed``: what the set was chosen by.
    """

    def __init__(
        self,
        num_samples: int,
        cache_ids: np.ndarray,
        num_neighbors: int,
        source: Mapping[str, str],
        num_candidates: Optional[int] = None,
        proportion: Optional[float] = None,
        seed: Optional[int] = None,
    ) -> None:
        self.num_samples = num_samples
        self.cache_ids = cache_ids
        self.num_neighbors = num_neighbors
        self.num_candidates = num_neighbors if num_candidates is None else num_candidates
        self.source: Dict[str, str] = dict(source)
        self.proportion, self.seed = proportion, seed

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
        return self._lists(self._checked(ids), side, self.num_neighbors)

    def candidates(self, ids: np.ndarray, side: str) -> np.ndarray:
        """As :meth:`lookup`, with the further ones behind: ``n x num_candidates``."""
        return self._lists(self._checked(ids), side, self.num_candidates)

    def available(self, ids: np.ndarray, side: str, contains: Callable[[np.ndarray], np.ndarray]) -> Available:
        """The nearest neighbours of *ids* among those that *contains* says are there (ids ``m`` -> bool ``m``)."""

        def there(lists: np.ndarray) -> np.ndarray:
            return contains(lists.ravel()).reshape(lists.shape)

        nearest = self.lookup(ids, side)
        found = there(nearest)
        further: np.ndarray = np.logical_not(found.all(axis=1))
        if further.any() and self.num_candidates > self.num_neighbors:
            lists = self.candidates(np.asarray(ids)[further], side)
            held = there(lists)
            order = np.argsort(~held, axis=1, kind="stable")[:, : self.num_neighbors]
            nearest[further] = np.take_along_axis(lists, order, axis=1)
            found[further] = np.take_along_axis(held, order, axis=1)
        return Available(nearest, found, further)

    def restrict(self, trained: np.ndarray) -> None:
        """Take pairs that are not *trained* (bool, ``num_samples``) out of the cache set; lists keep naming them."""
        self.cache_ids = self.cache_ids[trained[self.cache_ids]]
        if len(self.cache_ids) == 0:
            raise ValueError(
                "no pair of the cache set is trained: all are too long for --max-source-positions, "
                "--max-target-positions or --max-tokens"
            )

    def _lists(self, ids: np.ndarray, side: str, columns: int) -> np.ndarray:
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
    """Neighbour lists held in memory: side -> ``num_samples x num_candidates`` (int32)."""

    def __init__(
        self,
        num_samples: int,
        cache_ids: np.ndarray,
        num_neighbors: int,
        lists: Mapping[str, np.ndarray],
        source: Mapping[str, str],
        proportion: Optional[float] = None,
        seed: Optional[int] = None,
    ) -> None:
        columns = next(iter(lists.values())).shape[1]
        super().__init__(num_samples, cache_ids, num_neighbors, source, columns, proportion, seed)
        self._arrays = dict(lists)

    def _lists(self, ids: np.ndarray, side: str, columns: int) -> np.ndarray:
        return self._arrays[side][ids, :columns].astype(np.int64)


def check_num_neighbors(num_neighbors: int, cache_size: int) -> None:
    """Refuse a K that is no count, or larger than the cache set."""
    if num_neighbors < 1:
        raise ValueError(f"the number of neighbors must be >= 1, got {num_neighbors}")
    if num_neighbors > cache_size:
        raise ValueError(
            f"{num_neighbors} neighbors asked for, but only {cache_size} pairs are cached: "
            "raise the proportion of cached pairs or lower the number of neighbors"
        )
