"""Iterators that bring their own groups of micro-batches."""

from __future__ import annotations

from typing import Any, Callable

from fairseq_adv.compat.patch import replaces


@replaces("fairseq.data.iterators.GroupedIterator.__new__")
def keep_own_groups(original: Callable[..., Any]) -> Callable[..., Any]:
    """``GroupedIterator(iterator, update_freq)`` is *iterator* itself if that yields whole updates already.

    ``fairseq_cli.train`` wraps every training iterator in groups of ``--update-freq`` micro-batches. An iterator
    with ``own_groups = True`` yields lists of micro-batches whose lengths differ between updates, as batches
    counted in tokens need. ``__new__`` is changed and not the name, so that the class stays one; Python
    calls ``__init__`` only if ``__new__`` returns an instance of the class. All other iterators are grouped as before.
    """

    def new(cls: Any, iterable: Any, *args: Any, **kwargs: Any) -> Any:
        return iterable if getattr(iterable, "own_groups", False) else original(cls)

    return new
