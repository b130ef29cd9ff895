"""Perturbations of a batch as ARCH serves them between refreshes: from the cache, or from cached neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.cache import CacheReader, PerturbationCache
from fairseq_adv.neighbors import Neighbors


@dataclass(frozen=True)
class ServedSide:
    """One side of a batch of B samples, on the CPU in fp32.

    ``exact`` (``B``, bool) marks the samples that are themselves cached; ``values`` (``B x L x D``, canonical layout)
    is what was stored for them and zero for the others. For the others' reconstruction: ``means`` (``B x K x D``) and
    ``norms`` (``B x K``) of their neighbours, ``found`` (``B x K``) where a neighbour is in the cache.
    """

    exact: Tensor
    values: Tensor
    means: Tensor
    norms: Tensor
    found: Tensor


class CachedPerturbations:
    """The cache together with the neighbours that stand in for uncached samples."""

    def __init__(self, cache: PerturbationCache, neighbors: Neighbors, num_neighbors: int) -> None:
        self.cache, self.neighbors, self.num_neighbors = cache, neighbors, num_neighbors

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

    def serve(self, ids: np.ndarray, side: str, lengths: Sequence[int], num_columns: int, dim: int) -> ServedSide:
        """What the committed generation holds for *ids*; *lengths* are their numbers of real tokens.

        Raises ``ValueError`` if a stored perturbation has another length than its sentence has now.
        """
        reader, count = self.cache.reader, len(ids)
        values = torch.zeros(count, num_columns, dim)
        means = torch.zeros(count, self.num_neighbors, dim)
        norms = torch.zeros(count, self.num_neighbors)
        found = np.zeros((count, self.num_neighbors), dtype=bool)
        if reader is None:
            return ServedSide(torch.zeros(count, dtype=torch.bool), values, means, norms, torch.from_numpy(found))
        exact = self.neighbors.is_cached(ids) & reader.contains(ids)
        self._read_exact(reader, ids, side, lengths, np.flatnonzero(exact), values)
        rest = np.flatnonzero(~exact)
        if len(rest):
            neighbor_ids = self.neighbors.lookup(ids[rest], side)  # R x K
            found[rest] = reader.contains(neighbor_ids.ravel()).reshape(neighbor_ids.shape)
            if found.any():
                mean, norm = reader.read_means(neighbor_ids[found[rest]], side)
                means[torch.from_numpy(found)], norms[torch.from_numpy(found)] = mean, norm
        return ServedSide(torch.from_numpy(exact), values, means, norms, torch.from_numpy(found))

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
