"""What the CPU knows of a batch without asking a GPU, and reading for it ahead of its turn."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, Dict, List, Optional

import numpy as np

from fairseq_adv.cache.background import Background

WINDOW = 4  # micro-batches whose perturbations lie in memory before their turn


@dataclass(eq=False)
class KnownBatch:
    """Sample ids (``B``, int64), and for each side the lengths in real tokens (``B``, int64) and the columns L.

    It travels in the batch itself, through everything that copies a batch to a device.
    """

    ids: np.ndarray
    lengths: Dict[str, np.ndarray]
    columns: Dict[str, int]
    reading: Optional[Future[Any]] = field(default=None, repr=False)

    def part(self, rows: np.ndarray) -> KnownBatch:
        """The same of some *rows* alone, in as many columns."""
        return KnownBatch(self.ids[rows], {side: there[rows] for side, there in self.lengths.items()}, self.columns)


class ReadAhead:
    """*read* for the batches that were announced, on a thread of its own, in their order, ``WINDOW`` at a time.

    *read* must not be called by anybody else; a batch that was never announced is read when it is asked for.
    """

    def __init__(self, read: Callable[[KnownBatch], Any]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._thread = Background("reading perturbations")
        self._waiting: Deque[weakref.ref[KnownBatch]] = deque()
        self._begun: List[weakref.ref[KnownBatch]] = []

    def announce(self, batch: KnownBatch) -> None:
        """*batch* will be asked for."""
        self._waiting.append(weakref.ref(batch))
        self._begin()

    def take(self, batch: KnownBatch) -> Any:
        """What was read for *batch*, or what reading it raised; it is not kept, so that a second time reads anew."""
        future, batch.reading = batch.reading, None
        if future is None or future.cancelled():
            result = self._read_now(batch)
        else:
            result = future.result()
        self._begin()
        return result

    def stop(self) -> None:
        """Read nothing more of what was announced; returns when nothing is being read."""
        self._waiting.clear()
        for batch in filter(None, (reference() for reference in self._begun)):
            if batch.reading is not None:
                batch.reading.cancel()
        self._thread.drain()
        self._begun.clear()

    def _read_now(self, batch: KnownBatch) -> Any:
        with self._lock:
            return self._read(batch)

    def _begin(self) -> None:
        """Submit what waits, up to the window; a batch that nobody holds any more is left out."""
        alive = ((reference, reference()) for reference in self._begun)
        self._begun = [reference for reference, batch in alive if batch is not None and batch.reading is not None]
        while self._waiting and len(self._begun) < WINDOW:
            reference = self._waiting.popleft()
            batch = reference()
            if batch is not None:
                batch.reading = self._thread.submit(_reader_of(reference, self._read_now))
                self._begun.append(reference)


def _reader_of(reference: weakref.ref[KnownBatch], read: Callable[[KnownBatch], Any]) -> Callable[[], Any]:
    def action() -> Any:
        batch = reference()
        return None if batch is None else read(batch)

    return action
