"""Perturbations of a batch as ARCH serves them between refreshes: from the cache, or from cached neighbours."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.cache import CacheReader, PerturbationCache
from fairseq_adv.cache.writing import Averages, Refreshed
from fairseq_adv.data.known_batch import KnownBatch, ReadAhead
from fairseq_adv.data.neighbor_means import NeighborMeans
from fairseq_adv.data.served_batch import ReadSide, ServedBatch, index_of, read_side
from fairseq_adv.neighbors import Neighbors

logger = logging.getLogger(__name__)

IDS_AT_A_TIME = 1 << 18  # whose neighbours are looked up together when a generation is described


class CachedPerturbations:
    """The cache together with the neighbours that stand in for uncached samples.

    *trained* (bool, one for each pair of the data set) are the pairs that training has; *device* is where it trains.
    *means_limit* is what the neighbours' means may take there, in bytes (``None``: a quarter of what is free).
    """

    def __init__(
        self,
        cache: PerturbationCache,
        neighbors: Neighbors,
        trained: np.ndarray,
        device: torch.device,
        means_limit: Optional[int] = None,
    ) -> None:
        self.cache, self.neighbors, self.trained = cache, neighbors, trained
        if device.type == "cuda" and device.index is None:  # another thread's present device need not be this one
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self._means = NeighborMeans(device, means_limit)
        self._ahead = ReadAhead(self._read)

    # ---- a refresh ----------------------------------------------------------------------------------------

    def store(
        self, batch: KnownBatch, update_num: int, values: Mapping[str, Tensor], skip: Tensor, factor: float = 1.0
    ) -> Storing:
        """Average into the cache what belongs to its set, beside the training; samples in *skip* (``B``) are left out.

        *values* (``B x L x D`` for each side, on the device) are divided by *factor*. Only the rows of the cache set
        are copied, without waiting for the device.
        """
        rows = np.flatnonzero(self.neighbors.is_cached(batch.ids))
        if len(rows) == 0:
            return Storing(rows, None)
        copies = {side: _copied_rows(delta, batch, side, rows, factor) for side, delta in values.items()}
        chosen = torch.from_numpy(rows).to(skip.device, non_blocking=True)
        left_out = _to_host(skip.index_select(0, chosen))
        copied = None
        if skip.device.type == "cuda":
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(skip.device))

        def collect() -> Refreshed:
            if copied is not None:
                copied.synchronize()
            keep = np.flatnonzero(~left_out.numpy())
            sides = {}
            for side, flat in copies.items():
                sentences = flat.split(batch.lengths[side][rows].tolist())
                sides[side] = [sentences[i] for i in keep]
            storing.rows = rows[keep]
            return Refreshed(batch.ids[storing.rows].tolist(), sides)

        storing = Storing(rows, None)
        storing.future = self.cache.put_later(update_num, collect)
        return storing

    def stop_reading(self) -> None:
        """Before the generation changes: nothing is read of it any more."""
        self._ahead.stop()

    def commit(self) -> None:
        """Every rank, at the end of a refresh: its generation becomes the one that is served; rank 0 logs its gaps."""
        self.stop_reading()
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

    def foresee(self, batch: KnownBatch) -> None:
        """*batch* will be served soon: read for it beside the training."""
        self._ahead.announce(batch)

    def serve(self, batch: KnownBatch) -> ServedBatch:
        """What the committed generation holds for *batch*, on its way to the device.

        Raises ``ValueError`` if a stored perturbation has another length than its sentence has now.
        """
        generation, sides = self._ahead.take(batch)
        reader = self.cache.reader
        if reader is not None and generation != reader.manifest.name:  # announced before a commit
            generation, sides = self._ahead.take(batch)
        epsilon = self.cache.spec.epsilon
        served = {side: read.on_device(self.device, batch.columns[side], epsilon) for side, read in sides.items()}
        exact = next(iter(sides.values())).exact.numpy()
        none = np.logical_or.reduce([~exact & ~read.found.numpy().any(axis=1) for read in sides.values()])
        further = np.logical_or.reduce([read.further for read in sides.values()]) & ~none
        return ServedBatch(served, int(exact.sum()), int(further.sum()), int(none.sum()))

    def _read(self, batch: KnownBatch) -> Tuple[str, Dict[str, ReadSide]]:
        """On whichever thread: the generation that is read, and what it holds."""
        reader = self.cache.reader
        if reader is None:
            raise RuntimeError("no generation has been committed: there is nothing to serve")
        pinned = self.device.type == "cuda"
        with torch.cuda.device(self.device) if pinned else nullcontext():
            tables = self._means.tables(reader)
            sides = {
                side: read_side(reader, self.neighbors, batch, side, tables.get(side), pinned) for side in batch.lengths
            }
        return reader.manifest.name, sides


class Storing:
    """Perturbations on their way into the cache."""

    def __init__(self, rows: np.ndarray, future: Optional[Future[Averages]]) -> None:
        self.rows, self.future = rows, future

    def averages(self) -> List[Tuple[int, Dict[str, Tensor]]]:
        """Row and averages (``{side: len_i x D}``) of each sample that was stored; waits for them."""
        if self.future is None:
            return []
        averages = self.future.result()  # by now rows are those that were kept
        return list(zip(self.rows.tolist(), averages))


def _copied_rows(delta: Tensor, batch: KnownBatch, side: str, rows: np.ndarray, factor: float) -> Tensor:
    """The real tokens of *rows* of *delta* (``B x L x D``), sentence after sentence: ``T x D`` fp32, on its way."""
    index = torch.from_numpy(index_of(rows, batch.lengths[side][rows], delta.size(1)))
    if delta.device.type == "cuda":
        index = index.pin_memory().to(delta.device, non_blocking=True)
    picked = delta.detach().flatten(0, 1).index_select(0, index).float()
    return _to_host(picked if factor == 1.0 else picked / factor)


def _to_host(tensor: Tensor) -> Tensor:
    """*tensor* on the CPU, without waiting: whoever reads it waits for the stream first."""
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


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
