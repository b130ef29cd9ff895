"""Places: which ranks share a cache directory, and who looks after it.

With ``--cache-placement shared`` all ranks see one directory. With ``node-local`` each node has its own: the ranks that
see the same directory are one *place*, whatever it is called on each of them. The lowest rank of a place is its
*keeper*: it owns the directory, makes folders, writes manifests and deletes. Rank 0 is always one.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from contextlib import suppress
from typing import Callable, List, Optional, Sequence, TypeVar

from fairseq_adv.cache.comm import Comm, together
from fairseq_adv.cache.files import files

logger = logging.getLogger(__name__)

T = TypeVar("T")

PLACEMENTS = ("shared", "node-local")
PROBE_SECONDS = 30.0  # in which a shared file system must show a rank the file of another; NFS takes one look


class Places:
    """The places of a group of ranks, and collective actions on them; ``keeper_of[r]`` is the keeper of rank *r*."""

    def __init__(self, comm: Comm, rank: int, directory: str, keeper_of: Sequence[int]) -> None:
        self.comm, self.rank, self.directory = comm, rank, directory
        self.keepers = sorted(set(keeper_of))
        self.is_keeper = keeper_of[rank] == rank
        self.several = len(self.keepers) > 1
        self.between_keepers = comm.subgroup(self.keepers) if self.several else comm

    def on_ranks(self, action: Callable[[], T], what: str) -> List[T]:
        """The results of *action* on all ranks; if it fails on any, all raise ``CacheError``."""
        return together(self.comm, self.rank, action, what)

    def on_keepers(self, action: Callable[[], T], what: str) -> List[T]:
        """Every rank calls it; the results of *action* in each place, in the order of ``keepers``."""
        results = self.on_ranks(lambda: action() if self.is_keeper else None, what)
        return [result for rank, result in enumerate(results) if rank in self.keepers]  # type: ignore[misc]

    def on_rank_zero(self, action: Callable[[], T], what: str) -> T:
        """Every rank calls it; what *action* returns on rank 0."""
        return self.on_ranks(lambda: action() if self.rank == 0 else None, what)[0]  # type: ignore[return-value]


def find_places(comm: Comm, rank: int, world_size: int, directory: str, placement: str = "shared") -> Places:
    """Every rank: find out, by small files that come and go, which ranks see the same *directory*, made if need be.

    Raises ``CacheError``, on all ranks, if it cannot be written, and under *placement* ``shared`` if a rank does not
    see rank 0's directory.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"--cache-placement must be one of {', '.join(PLACEMENTS)}, got {placement!r}")
    if world_size == 1:
        return Places(comm, rank, directory, [0])
    probe = os.path.join(directory, f"PROBE.tmp-{comm.broadcast_object(uuid.uuid4().hex[:8])}-")
    shared, what = placement == "shared", "opening the cache"
    together(comm, rank, lambda: _leave(f"{probe}{rank}") if rank == 0 or not shared else None, what)
    try:
        look = (lambda: _see_rank_zero(probe, rank)) if shared else (lambda: _lowest_seen(probe, world_size))
        keeper_of = together(comm, rank, look, what)
    finally:
        with suppress(OSError):
            os.unlink(f"{probe}{rank}")
    _check_agreement(keeper_of, directory)
    places = Places(comm, rank, directory, keeper_of)
    if places.several and rank == 0:
        logger.info(
            "%d ranks keep the cache in %d places, of ranks %s", world_size, len(places.keepers), places.keepers
        )
    return places


def _leave(path: str) -> None:
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, exist_ok=True)
        os.close(files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except OSError as error:
        raise ValueError(f"cannot write to cache directory {directory}: {os.strerror(error.errno or 0)}") from error


def _lowest_seen(probe: str, world_size: int) -> int:
    return next(other for other in range(world_size) if os.path.exists(f"{probe}{other}"))


def _see_rank_zero(probe: str, rank: int) -> int:
    deadline = time.monotonic() + PROBE_SECONDS
    while not os.path.exists(f"{probe}0"):
        if time.monotonic() >= deadline:
            raise ValueError(
                f"rank {rank} on {socket.gethostname()} does not see the cache directory of rank 0 at "
                f"{os.path.dirname(probe)}: put it on a file system that all nodes share (--cache-dir), or let each "
                "node have a directory of its own with --cache-placement node-local"
            )
        time.sleep(0.1)
    return 0


def _check_agreement(keeper_of: Sequence[int], directory: str) -> None:
    """A keeper must keep its own place; else the file system showed a new file to some ranks only."""
    odd: Optional[int] = next((rank for rank, keeper in enumerate(keeper_of) if keeper_of[keeper] != keeper), None)
    if odd is not None:
        raise ValueError(
            f"ranks {odd} and {keeper_of[odd]} do not agree whether they see the same cache directory ({directory}): "
            "its file system shows new files late; give --cache-dir a folder on each node's own disk"
        )
