"""From the cache to the device: what is read for a batch on the CPU, and how it is put in its place where it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.cache import CacheReader
from fairseq_adv.cache.shard import decode_rows
from fairseq_adv.data.known_batch import KnownBatch
from fairseq_adv.data.neighbor_means import Table
from fairseq_adv.neighbors import Neighbors


@dataclass(frozen=True)
class ServedSide:
    """One side of a batch of B samples, on the device that trains, in fp32.

    ``exact`` (``B``, bool) marks the samples that are themselves cached; ``values`` (``B x L x D``, canonical layout)
    is what was stored for them and zero for the others. For the others' reconstruction: ``means`` (``B x K x D``) and
    ``norms`` (``B x K``) of their neighbours, ``found`` (``B x K``) where a neighbour is in the cache.
    """

    exact: Tensor
    values: Tensor
    means: Tensor
    norms: Tensor
    found: Tensor


@dataclass(frozen=True)
class ServedBatch:
    """The sides of a batch, and how many of its samples are ``cached``, take a ``further`` neighbour than one of their
    nearest, or have none on some side (``without``).
    """

    sides: Dict[str, ServedSide]
    cached: int = 0
    further: int = 0
    without: int = 0


@dataclass(frozen=True)
class ReadSide:
    """What was read for one side, on the CPU, as the cache stores it, in pinned memory where that helps.

    ``rows`` (``T x D`` in the cache's number format, with ``scale``, ``T``, if it is int8) are those of the cached
    samples one after the other and ``index`` (``T``) their places among B·L. Neighbours: ``places`` (``B·K``) in a
    ``table`` that lies on the device, or ``means`` and ``norms`` of those found with their ``places`` among B·K.
    """

    exact: Tensor
    found: Tensor
    rows: Tensor
    scale: Tensor
    index: Tensor
    places: Tensor
    further: np.ndarray
    table: Optional[Table] = None
    means: Optional[Tensor] = None
    norms: Optional[Tensor] = None

    def on_device(self, device: torch.device, columns: int, epsilon: float) -> ServedSide:
        """Copy it to *device* without waiting and put everything in its place; *columns* is L."""
        count, num_neighbors = self.found.shape
        rows, scale, index = (part.to(device, non_blocking=True) for part in (self.rows, self.scale, self.index))
        values = torch.zeros(count * columns, rows.size(1), device=device)
        values.index_copy_(0, index, decode_rows(rows, scale, epsilon))
        places = self.places.to(device, non_blocking=True)
        if self.table is not None:
            means, norms = self.table.means.index_select(0, places), self.table.norms.index_select(0, places)
        else:
            assert self.means is not None and self.norms is not None
            means = torch.zeros(count * num_neighbors, rows.size(1), device=device)
            norms = torch.zeros(count * num_neighbors, device=device)
            means.index_copy_(0, places, self.means.to(device, non_blocking=True))
            norms.index_copy_(0, places, self.norms.to(device, non_blocking=True))
        return ServedSide(
            self.exact.to(device, non_blocking=True),
            values.view(count, columns, -1),
            means.view(count, num_neighbors, -1),
            norms.view(count, num_neighbors),
            self.found.to(device, non_blocking=True),
        )


def read_side(
    reader: CacheReader, neighbors: Neighbors, batch: KnownBatch, side: str, table: Optional[Table], pinned: bool
) -> ReadSide:
    """Read what *batch* needs on *side*: the records of its cached samples, and of the others' neighbours the means.

    Raises ``ValueError`` if a stored perturbation has another length than its sentence has now.
    """
    ids, count = batch.ids, len(batch.ids)
    exact = neighbors.is_cached(ids) & reader.contains(ids)
    cached, rest = np.flatnonzero(exact), np.flatnonzero(~exact)
    stored = reader.read_stored(ids[cached], side, pinned)
    _check_lengths(stored.lengths, batch, side, cached)
    nearest = neighbors.available(ids[rest], side, reader.contains)
    found, further = np.zeros((count, neighbors.num_neighbors), dtype=bool), np.zeros(count, dtype=bool)
    found[rest], further[rest] = nearest.found, nearest.further
    wanted = nearest.ids[nearest.found]
    parts: Dict[str, Optional[Tensor]] = {}
    if table is not None:
        all_places = np.zeros(found.shape, dtype=np.int64)
        all_places[found] = reader.places_of(wanted)
        places = torch.from_numpy(all_places.ravel())
    else:
        places = torch.from_numpy(np.flatnonzero(found.ravel()))
        parts["means"], parts["norms"] = reader.read_means(wanted, side)
    index = torch.from_numpy(index_of(cached, stored.lengths, batch.columns[side]))
    parts.update(exact=torch.from_numpy(exact), found=torch.from_numpy(found), index=index, places=places)
    if pinned:
        parts = {name: None if part is None else part.pin_memory() for name, part in parts.items()}
    return ReadSide(rows=stored.rows, scale=stored.scale, further=further, table=table, **parts)  # type: ignore[arg-type]


def _check_lengths(lengths: np.ndarray, batch: KnownBatch, side: str, cached: np.ndarray) -> None:
    now = batch.lengths[side][cached]
    if (lengths != now).any():
        place = int(np.flatnonzero(lengths != now)[0])
        raise ValueError(
            f"the cache holds {lengths[place]} {side} tokens for sample {batch.ids[cached[place]]}, the batch has "
            f"{now[place]}: the sentence changed since it was cached (augmentation that changes lengths cannot be "
            "combined with a cache)"
        )


def index_of(rows: np.ndarray, lengths: np.ndarray, columns: int) -> np.ndarray:
    """Places of the first ``lengths[i]`` columns of each row ``rows[i]`` in a matrix of *columns* columns."""
    total = int(lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(rows * columns, lengths) + within
