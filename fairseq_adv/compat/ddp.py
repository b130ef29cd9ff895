"""Distributed training whose state survives what happens inside one update."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator

from fairseq_adv.compat.patch import replaces

_LEGACY = "fairseq.distributed.legacy_distributed_data_parallel.LegacyDistributedDataParallel"


@replaces(f"{_LEGACY}.no_sync")
def sync_again_after_an_exception(original: Callable[..., Any]) -> Callable[..., Any]:
    """``--ddp-backend legacy_ddp`` reduces gradients again after an exception inside ``no_sync``.

    Fairseq restores its flag only where the block ends well. The trainer goes on after an out-of-memory error in a
    micro-batch, and from then on each rank would train a model of its own without a word.
    """

    @contextmanager
    def no_sync(self: Any) -> Iterator[None]:
        accumulating = self.accumulate_grads
        try:
            with original(self):
                yield
        finally:
            self.accumulate_grads = accumulating

    return no_sync
