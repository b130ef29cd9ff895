"""What the cache needs of a group of ranks: three collectives on Python objects."""

from __future__ import annotations

from typing import Any, Callable, List, Protocol, TypeVar

T = TypeVar("T")


class Comm(Protocol):
    """A group of ranks."""

    def all_gather_object(self, value: Any) -> List[Any]: ...

    def broadcast_object(self, value: Any, src: int = 0) -> Any: ...

    def barrier(self) -> None: ...


class LocalComm:
    """A group of one."""

    def all_gather_object(self, value: Any) -> List[Any]:
        return [value]

    def broadcast_object(self, value: Any, src: int = 0) -> Any:
        return value

    def barrier(self) -> None:
        pass


class TorchComm:
    """All ranks of ``torch.distributed``, over a gloo group of its own, so that no GPU memory is touched."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self._group = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")

    def all_gather_object(self, value: Any) -> List[Any]:
        values: List[Any] = [None] * self._dist.get_world_size(self._group)
        self._dist.all_gather_object(values, value, group=self._group)
        return values

    def broadcast_object(self, value: Any, src: int = 0) -> Any:
        box = [value]
        self._dist.broadcast_object_list(box, src=src, group=self._group)
        return box[0]

    def barrier(self) -> None:
        self._dist.barrier(group=self._group)


class CacheError(OSError, ValueError):
    """What went wrong on some rank, raised with the same text on all of them."""


def together(comm: Comm, rank: int, action: Callable[[], T], what: str) -> List[T]:
    """Run *action* on every rank and return all results; if it fails on any, all raise :class:`CacheError`.

    Whatever *action* raises counts as failure: a rank that went its own way would leave the others waiting.
    """
    result: Any = None
    cause = failure = None
    try:
        result = action()
    except Exception as error:
        cause, expected = error, isinstance(error, (OSError, ValueError))
        failure = str(error) if expected else f"{type(error).__name__}: {error}"
    gathered = comm.all_gather_object((result, failure))
    failures = [f"rank {other}: {message}" for other, (_, message) in enumerate(gathered) if message is not None]
    if failures:
        count = f" on {len(failures)} of {len(gathered)} ranks" if len(gathered) > 1 else ""
        raise CacheError(f"{what} failed{count}: {'; '.join(failures)}") from cause
    return [value for value, _ in gathered]
