"""What the cache needs of a group of ranks: collectives on Python objects, and one on bytes."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Protocol, Sequence, TypeVar

import torch

T = TypeVar("T")


class Comm(Protocol):
    """A group of ranks; *src* is always a rank's number among all, not its place in a subgroup."""

    def all_gather_object(self, value: Any) -> List[Any]: ...

    def broadcast_object(self, value: Any, src: int = 0) -> Any: ...

    def barrier(self) -> None: ...

    def broadcast_bytes(self, data: memoryview, src: int) -> None:
        """Fill *data*, writable and of one length on all ranks, with that of rank *src*."""

    def subgroup(self, ranks: Sequence[int]) -> Comm:
        """A group of *ranks* alone; every rank calls this, those outside must not use what they get."""


class LocalComm:
    """A group of one."""

    def all_gather_object(self, value: Any) -> List[Any]:
        return [value]

    def broadcast_object(self, value: Any, src: int = 0) -> Any:
        return value

    def barrier(self) -> None:
        pass

    def broadcast_bytes(self, data: memoryview, src: int) -> None:
        pass

    def subgroup(self, ranks: Sequence[int]) -> LocalComm:
        return self


class TorchComm:
    """All ranks of ``torch.distributed`` (or *ranks*), over a gloo group, so that no GPU memory is touched."""

    def __init__(self, ranks: Optional[Sequence[int]] = None) -> None:
        import torch.distributed as dist

        self._dist = dist
        if ranks is None and dist.get_backend() == "gloo":
            self._group = dist.group.WORLD
        else:
            self._group = dist.new_group(None if ranks is None else list(ranks), backend="gloo")

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

    def broadcast_bytes(self, data: memoryview, src: int) -> None:
        self._dist.broadcast(torch.frombuffer(data, dtype=torch.uint8), src=src, group=self._group)

    def subgroup(self, ranks: Sequence[int]) -> TorchComm:
        return TorchComm(ranks)


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
