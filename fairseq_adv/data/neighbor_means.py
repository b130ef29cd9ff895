"""The neighbours' means where they are needed: on the device that trains, if they fit, or read for each batch."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Dict, NamedTuple, Optional

import torch
from torch import Tensor

from fairseq_adv.cache import CacheReader

logger = logging.getLogger(__name__)

FREE_SHARE = 0.25  # of the free memory, that the means may take without being told so
ROWS_AT_A_TIME = 1 << 14


class Table(NamedTuple):
    """Means ``M x D`` and norms ``M`` (fp32) of all M cached samples, in the order of the reader's ids."""

    means: Tensor
    norms: Tensor


class NeighborMeans:
    """Tables of one generation's means on *device*; *limit* is what they may take in bytes.

    Without a *limit* that is a quarter of the memory that is free when a generation is first read.
    """

    def __init__(self, device: torch.device, limit: Optional[int] = None) -> None:
        self._device, self._limit = device, limit
        self._generation = ""
        self._tables: Dict[str, Table] = {}

    def tables(self, reader: CacheReader) -> Dict[str, Table]:
        """For each side a table of what *reader* holds; empty if they do not fit."""
        if reader.manifest.name != self._generation:
            self._tables = {}  # the old ones go first
            self._tables, self._generation = self._load(reader), reader.manifest.name
        return self._tables

    def _load(self, reader: CacheReader) -> Dict[str, Table]:
        dims = [int(reader.dim(side)) for side in reader.sides]
        needed = sum(4 * (dim + 1) for dim in dims) * len(reader.ids)
        limit = int(free_memory(self._device) * FREE_SHARE) if self._limit is None else self._limit
        fits = 0 < needed <= limit
        logger.info(
            "the means of generation %d take %.3f GB of the %.3f GB that they may take on %s: %s",
            *(reader.manifest.generation, needed / 1e9, limit / 1e9, self._device),
            "they are held there" if fits else "they are read for each batch",
        )
        return {side: self._table(reader, side) for side in reader.sides} if fits else {}

    def _table(self, reader: CacheReader, side: str) -> Table:
        means = torch.empty(len(reader.ids), reader.dim(side), device=self._device)
        norms = torch.empty(len(reader.ids), device=self._device)
        for first in range(0, len(reader.ids), ROWS_AT_A_TIME):
            part = slice(first, first + ROWS_AT_A_TIME)
            means[part], norms[part] = (read.to(self._device) for read in reader.read_means(reader.ids[part], side))
        return Table(means, norms)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on *device*; of a CPU's the share of one of the processes that train there."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    for line in Path("/proc/meminfo").read_text().splitlines() if os.path.exists("/proc/meminfo") else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 // processes
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (4 * processes)
