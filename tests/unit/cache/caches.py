"""Small caches for tests: made-up perturbations, and a group of ranks that are threads."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Sequence

import torch
from torch import Tensor

from fairseq_adv.cache import CacheReader, CacheSpec, PerturbationCache

DIM, EPSILON = 6, 0.5
SIDES = ["src", "tgt"]  # of all caches here; a test may leave one out


def spec(dtype: str = "fp32", **changes: Any) -> CacheSpec:
    fields = {"data.num_samples": 100, **{f"dim.{side}": DIM for side in SIDES}, **changes}
    return CacheSpec(fields, epsilon=EPSILON, dtype=dtype, sides=tuple(SIDES))


def delta(sample_id: int, epoch: int, side: str, length: int = -1) -> Tensor:
    """A perturbation inside the ball, the same for the same arguments; 1 to 5 tokens unless told."""
    generator = torch.Generator().manual_seed(1000 * sample_id + 10 * epoch + (side == "tgt"))
    rows = torch.randn(1 + sample_id % 5 if length < 0 else length, DIM, generator=generator)
    return 0.9 * EPSILON * rows / rows.norm().clamp(min=1e-9)


def open_for_writing(directory: Any, dtype: str = "fp32", ema: float = 0.25, **options: Any) -> PerturbationCache:
    return PerturbationCache(str(directory), spec(dtype), **{"ema": ema, "run_id": "run", **options})


def put(cache: PerturbationCache, ids: Sequence[int], epoch: int) -> None:
    sides = {side: [delta(i, epoch, side) for i in ids] for side in SIDES}
    cache.put(ids, epoch, sides.get("src"), sides.get("tgt"))


def refresh(cache: PerturbationCache, ids: Sequence[int], epoch: int) -> int:
    cache.begin_refresh(epoch)
    put(cache, ids, epoch)
    return cache.commit(expected_ids=ids)


def reader_of(cache: PerturbationCache) -> CacheReader:
    """The reader of a cache that has something committed."""
    assert cache.reader is not None
    return cache.reader


def contents(cache: Any) -> Dict[tuple, Tensor]:
    """Everything that a reader (or a cache's reader) holds."""
    reader = getattr(cache, "reader", cache)
    return {(i, side): x for side in reader.sides for i, x in zip(reader.ids.tolist(), reader.read(reader.ids, side))}


def assert_same(left: Dict[tuple, Tensor], right: Dict[tuple, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


class ThreadComm:
    """One rank's end of a group of threads."""

    def __init__(self, slots: List[Any], barrier: threading.Barrier, rank: int) -> None:
        self.slots, self._barrier, self.rank = slots, barrier, rank

    def all_gather_object(self, value: Any) -> List[Any]:
        self.slots[self.rank] = value
        self._barrier.wait()
        values = list(self.slots)
        self._barrier.wait()
        return values

    def broadcast_object(self, value: Any, src: int = 0) -> Any:
        return self.all_gather_object(value)[src]

    def barrier(self) -> None:
        self._barrier.wait()

    def broadcast_bytes(self, data: memoryview, src: int) -> None:
        data[:] = self.broadcast_object(bytes(data), src)

    def subgroup(self, ranks: Sequence[int]) -> ThreadComm:
        fresh = [None] * len(self.slots), threading.Barrier(len(ranks), timeout=20)
        slots, barrier = self.broadcast_object(fresh)
        return ThreadComm(slots, barrier, self.rank)


def on_ranks(count: int, action: Callable[[int, ThreadComm], Any], seconds: float = 20) -> List[Any]:
    """What *action* returns, or the exception it raises, on each of *count* ranks; a hang breaks the barrier."""
    slots, barrier = [None] * count, threading.Barrier(count, timeout=seconds)
    results: List[Any] = [None] * count

    def run(rank: int) -> None:
        try:
            results[rank] = action(rank, ThreadComm(slots, barrier, rank))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
