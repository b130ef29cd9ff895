"""Telling of batches before they are trained on."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Iterator, Optional

from fairseq_adv.compat.patch import replaces

AHEAD = 2  # micro-batches that are taken from the data loader before their turn
Foreseer = Callable[[Any], None]


@replaces("fairseq.data.iterators.EpochBatchIterator._get_iterator_for_epoch")
def tell_of_coming_batches(original: Callable[..., Any]) -> Callable[..., Any]:
    """An epoch iterator with an attribute ``foreseer`` tells of each micro-batch, on the CPU, before its turn comes.

    ``foreseer()`` is asked when the epoch's first batch is taken, and returns what is to be called with each batch as
    collated, or ``None``. So what belongs to a batch can be read from the disk while the batch before it is trained on,
    by ids and lengths that need not come back from a GPU. Iterators without the attribute do what they did.
    """

    def get(self: Any, *args: Any, **kwargs: Any) -> Any:
        batches = original(self, *args, **kwargs)
        if batches is not None:
            batches._itr = TellingAhead(batches._itr, lambda: getattr(self, "foreseer", lambda: None)())
        return batches

    return get


class TellingAhead:
    """What *iterator* yields, each told to a foreseer ``AHEAD`` items before; nothing is taken ahead without one."""

    def __init__(self, iterator: Iterator[Any], ask: Callable[[], Optional[Foreseer]]) -> None:
        self._iterator, self._ask = iterator, ask
        self._foreseer: Optional[Foreseer] = None
        self._begun = self._exhausted = False
        self._told: Deque[Any] = deque()

    def __iter__(self) -> TellingAhead:
        return self

    def __next__(self) -> Any:
        if not self._begun:
            self._begun, self._foreseer = True, self._ask()
        if self._foreseer is None:
            return next(self._iterator)
        while len(self._told) <= AHEAD and not self._exhausted:
            self._tell_of_next(self._foreseer)
        if not self._told:
            raise StopIteration
        return self._told.popleft()

    def _tell_of_next(self, foreseer: Foreseer) -> None:
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._exhausted = True
            return
        foreseer(batch)
        self._told.append(batch)

    def take(self, count: int) -> None:
        """End after *count* more items."""
        take = getattr(self._iterator, "take", None)
        if take is not None:
            take(count)
