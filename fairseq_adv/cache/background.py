"""A thread beside the training: what it is given it does in turn, and its failures wait to be asked for."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import Any, Callable, Optional, Tuple

Job = Tuple["Future[Any]", Callable[[], Any]]


class Background:
    """One thread, started when it is first needed; *pending* actions wait at most, a further one has its giver wait.

    The thread ends with the process, whatever it is doing: nothing that it writes counts before its giver has asked.
    """

    def __init__(self, name: str, pending: int = 0) -> None:
        self._name = name
        self._jobs: queue.Queue[Optional[Job]] = queue.Queue(maxsize=pending)
        self._thread: Optional[threading.Thread] = None

    def submit(self, action: Callable[[], Any]) -> Future[Any]:
        """Have *action* done; the future has its result or what it raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        future: Future[Any] = Future()
        self._jobs.put((future, action))
        return future

    def drain(self) -> None:
        """Wait until all that was submitted has been done or was cancelled."""
        self._jobs.join()

    def close(self) -> None:
        """:meth:`drain`, and end the thread; it starts again when it is needed."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if job is None:
                    return
                _do(*job)
            finally:
                del job  # its tensors must not wait here for the next one
                self._jobs.task_done()


def _do(future: Future[Any], action: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(action())
    except BaseException as error:
        future.set_exception(error)
