"""Perturbations of a batch as ARCH serves them between refreshes: from the cache, or from cached neighbours."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.cache import CacheReader, PerturbationCache
from fairseq_adv.neighbors import Neighbors

logger = logging.getLogger(__name__)

IDS_AT_A_TIME = 1 << 18  # whose neighbours are looked up together when a generation is described


@dataclass(frozen=True)
class ServedSide:
    """One side of a batch of B samples, on the CPU in fp32.

    ``exact`` (``B``, bool) marks the samples that are themselves cached; ``values`` (``B x L x D``, canonical layout)
    is what was stored for them and zero for the others. For the others' reconstruction: ``means`` (``B x K x D``) and
    ``norms`` (``B x K``) of their neighbours, ``found`` (``B x K``) where a neighbour is in the cache. ``further``
    (``B``, bool) marks those of the others whose K nearest are not all there.
    """

    exact: Tensor
    values: Tensor
    means: Tensor
    norms: Tensor
    found: Tensor
    further: Tensor


class CachedPerturbations:
    """The cache together with the neighbours that stand in for uncached samples.

    *trained* (bool, one for each pair of the data set) are the pairs that training has.
    """

    def __init__(self, cache: PerturbationCache, neighbors: Neighbors, trained: np.ndarray) -> None:
        self.cache, self.neighbors, self.trained = cache, neighbors, trained

    # ---- a refresh ----------------------------------------------------------------------------------------

    def store(
        self, ids: np.ndarray, update_num: int, sides: Mapping[str, List[Tensor]], skip: Optional[np.ndarray] = None
    ) -> Dict[int, Dict[str, Tensor]]:
        """Average into the cache what belongs to its set; rows in *skip* (bool) are left out.

        *sides* maps each side to one ``len_i x D`` tensor for each id. Returns the averages by row.
        """
        keep = self.neighbors.is_cached(ids)
        if skip is not None:
            keep = keep & ~skip
        rows = np.flatnonzero(keep).tolist()
        if len(rows) == 0:
            return {}
        chosen = {side: [tensors[i] for i in rows] for side, tensors in sides.items()}
        averages = self.cache.put(ids[rows].tolist(), update_num, chosen.get("src"), chosen.get("tgt"))
        return dict(zip(rows, averages))

    def commit(self) -> None:
        """Every rank, at the end of a refresh: its generation becomes the one that is served; rank 0 logs its gaps."""
        generation = self.cache.commit(expected_ids=self.neighbors.cache_ids)
        if self.cache.rank == 0:
            coverage = self.coverage()
            level = logging.INFO if coverage.complete else logging.WARNING
            logger.log(level, "committed generation %s of the cached perturbations: %s", generation, coverage)

    def coverage(self) -> Coverage:
        """What the committed generation holds of the cache set, and whom its gaps leave without a neighbour."""
        reader = self.cache.reader
        assert reader is not None
        kept = sum(int(entry["n"]) for entry in reader.manifest.shards if entry["writer"] == "carried")
        held = reader.contains(self.neighbors.cache_ids)
        further, without = self._gaps(reader) if not held.all() else (0, 0)
        return Coverage(len(held), kept, int((~held).sum()), int(self.trained.sum()), further, without)

    def _gaps(self, reader: CacheReader) -> Tuple[int, int]:
        """Trained pairs that take a further neighbour on either side, and those that have none on either side."""
        there = np.zeros(len(self.trained), dtype=bool)
        there[reader.ids] = True
        rest = np.flatnonzero(self.trained & ~there)
        further = without = 0
        for first in range(0, len(rest), IDS_AT_A_TIME):
            ids = rest[first : first + IDS_AT_A_TIME]
            sides = [self.neighbors.available(ids, side, there.__getitem__) for side in reader.sides]
            none = np.logical_or.reduce([~side.found.any(axis=1) for side in sides])
            without += int(none.sum())
            further += int((np.logical_or.reduce([side.further for side in sides]) & ~none).sum())
        return further, without

    # ---- between refreshes --------------------------------------------------------------------------------

    def serve(self, ids: np.ndarray, side: str, lengths: Sequence[int], num_columns: int, dim: int) -> ServedSide:
        """What the committed generation holds for *ids*; *lengths* are their numbers of real tokens.

        Raises ``ValueError`` if a stored perturbation has another length than its sentence has now.
        """
        reader, count, num_neighbors = self.cache.reader, len(ids), self.neighbors.num_neighbors
        values = torch.zeros(count, num_columns, dim)
        means = torch.zeros(count, num_neighbors, dim)
        norms = torch.zeros(count, num_neighbors)
        found, exact = np.zeros((count, num_neighbors), dtype=bool), np.zeros(count, dtype=bool)
        further = np.zeros(count, dtype=bool)
        if reader is not None:
            exact = self.neighbors.is_cached(ids) & reader.contains(ids)
            self._read_exact(reader, ids, side, lengths, np.flatnonzero(exact), values)
            rest = np.flatnonzero(~exact)
            nearest = self.neighbors.available(ids[rest], side, reader.contains)  # R x K
            found[rest], further[rest] = nearest.found, nearest.further
            if nearest.found.any():
                mean, norm = reader.read_means(nearest.ids[nearest.found], side)
                means[torch.from_numpy(found)], norms[torch.from_numpy(found)] = mean, norm
        flags = torch.from_numpy(found), torch.from_numpy(further)
        return ServedSide(torch.from_numpy(exact), values, means, norms, *flags)

    @staticmethod
    def _read_exact(
        reader: CacheReader, ids: np.ndarray, side: str, lengths: Sequence[int], rows: np.ndarray, out: Tensor
    ) -> None:
        for row, stored in zip(rows, reader.read(ids[rows], side) if len(rows) else ()):
            if stored.size(0) != lengths[row]:
                raise ValueError(
                    f"the cache holds {stored.size(0)} {side} tokens for sample {ids[row]}, the batch has "
                    f"{lengths[row]}: the sentence changed since it was cached (augmentation that changes lengths "
                    "cannot be combined with a cache)"
                )
            out[row, : stored.size(0)] = stored


@dataclass(frozen=True)
class Coverage:
    """What a generation holds of its cache set, in pairs: ``kept`` from before, ``missing`` altogether; and of the
    ``trained`` pairs those that take a ``further`` neighbour and those ``without`` any.
    """

    cached: int
    kept: int
    missing: int
    trained: int
    further: int
    without: int

    @property
    def complete(self) -> bool:
        return self.kept == self.missing == 0

    def __str__(self) -> str:
        fresh = self.cached - self.kept - self.missing
        text = f"{fresh} of {self.cached} cached pairs were refreshed"
        if self.complete:
            return text
        shares = [f"{count} ({count / self.trained:.1%})" for count in (self.further, self.without)]
        return (
            f"{text}, {self.kept} keep an older perturbation and {self.missing} have none; of {self.trained} trained "
            f"pairs {shares[0]} take a further neighbor than their nearest and {shares[1]} have no neighbor at all"
        )
