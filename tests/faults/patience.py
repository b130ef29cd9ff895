"""Waiting with a limit that does not run out while the waiting process itself stands still."""

from __future__ import annotations

import time

STANDSTILL = 1.0  # seconds from one look to the next that count at most


class Patience:
    """*seconds* of this process's own time, looked at again and again by :attr:`is_over`.

    Whatever stops this process (a suspended machine, a frozen group of processes, SIGSTOP) most likely stops what it
    waits for, too: that is no hang.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Begin anew: something has happened."""
        self._spent, self._last = 0.0, time.monotonic()

    @property
    def is_over(self) -> bool:
        now = time.monotonic()
        self._spent += min(now - self._last, STANDSTILL)
        self._last = now
        return self._spent > self._seconds
