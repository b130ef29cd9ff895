"""Which cached sentences stand in for an uncached one (ARCH, Zuo et al. 2021, Eq. 3 and 4).

A training run reads lists with :func:`load_neighbors` or draws them with :func:`random_neighbors`; the command
``fairseq-adv neighbors`` finds them with :class:`NearestNeighbors` and writes them with :class:`NeighborFileWriter`.
"""

from __future__ import annotations

from fairseq_adv.neighbors.cache_set import choose_cache_set
from fairseq_adv.neighbors.file import NeighborFileWriter, load_neighbors
from fairseq_adv.neighbors.fingerprint import dataset_fingerprint
from fairseq_adv.neighbors.lists import SIDES, Neighbors
from fairseq_adv.neighbors.nearest import NearestNeighbors
from fairseq_adv.neighbors.random_lists import RandomNeighbors, random_neighbors

__all__ = [
    "SIDES",
    "NearestNeighbors",
    "NeighborFileWriter",
    "Neighbors",
    "RandomNeighbors",
    "choose_cache_set",
    "dataset_fingerprint",
    "load_neighbors",
    "random_neighbors",
]
