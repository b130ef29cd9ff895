"""The on-disk cache of perturbations: immutable generations of shards, committed by a manifest.

:func:`open_cache` reads a cache from any program; :class:`PerturbationCache` is the trainer's handle.
"""

from __future__ import annotations

from fairseq_adv.cache.comm import Comm, LocalComm, TorchComm
from fairseq_adv.cache.reader import CacheReader, open_cache
from fairseq_adv.cache.spec import CacheSpec, estimate_bytes
from fairseq_adv.cache.store import PerturbationCache

__all__ = [
    "CacheReader",
    "CacheSpec",
    "Comm",
    "LocalComm",
    "PerturbationCache",
    "TorchComm",
    "estimate_bytes",
    "open_cache",
]
