"""What one rank writes during a refresh, at once or on a thread of its own, and the failure that it met there."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from torch import Tensor

from fairseq_adv.cache.background import Background
from fairseq_adv.cache.writer import GenerationWriter

logger = logging.getLogger(__name__)

WRITES_WAITING = 8  # micro-batches that may wait for the thread that averages, encodes and writes them
Averages = List[Dict[str, Tensor]]
Sides = Mapping[str, Sequence[Tensor]]  # for each side one len_i x D for each sample


class Refreshed(NamedTuple):
    """New perturbations of samples ``ids``."""

    ids: Sequence[int]
    sides: Sides


class Writing:
    """The writer of the generation in progress, if there is one, and the thread beside the training.

    A disk that fails a rank which is *alone* raises at once. Among several the failure is logged and kept, and raised
    by :meth:`seal`, where all ranks meet: none waits for a rank that has gone.
    """

    def __init__(self, rank: int, alone: bool) -> None:
        self.writer: Optional[GenerationWriter] = None
        self._rank, self._alone = rank, alone
        self._background = Background("writing perturbations", WRITES_WAITING)
        self._failure: Optional[Exception] = None

    def put(self, ids: Sequence[int], update: int, sides: Sides) -> Averages:
        """The averages of the new perturbations with the old ones, as they are written; none after a failure."""
        if self.writer is None:
            raise RuntimeError("no refresh is in progress: call begin_refresh first")
        if self._failure is not None:
            return []
        try:
            return self.writer.put(ids, update, sides)
        except OSError as error:
            if self._alone:
                raise
            self._fail(error)
            return []

    def put_later(self, update: int, collect: Callable[[], Refreshed]) -> Future[Averages]:
        """:meth:`put` what *collect* returns, on the thread. At most ``WRITES_WAITING`` wait, then this waits."""
        if self._failure is not None and self._alone:
            raise self._failure

        def write() -> Averages:
            if self._failure is not None:
                return []
            try:
                refreshed = collect()
                return self.put(refreshed.ids, update, refreshed.sides)
            except Exception as error:
                self._fail(error)
                raise

        return self._background.submit(write)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        logger.error("rank %d cannot write to the cache, training stops at the next checkpoint: %s", self._rank, error)

    def seal(self) -> List[Dict[str, Any]]:
        """Wait for the thread and have every record on disk; what a checkpoint says of each shard so far."""
        self._background.drain()
        if self._failure is not None:
            raise self._failure
        assert self.writer is not None
        self.writer.seal()
        return self.writer.entries

    def forget(self) -> None:
        """Wait for the thread, and begin afresh: no writer, no failure."""
        self._background.drain()
        self.end()
        self._failure = None

    def end(self) -> None:
        """No generation is in progress any more."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def close(self) -> None:
        """Wait for the thread, and end it."""
        self._background.close()
        self.end()
