"""State of all ranks for a checkpoint, which only the first rank writes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, List, Optional

import torch.distributed as dist


def gather_on_first_rank(state: Any) -> List[Any]:
    """On rank 0 the *state* of every rank in order, elsewhere nothing. Every rank must call it.

    It travels and arrives in CPU memory, whatever group the gradients use: a batch of 450k tokens leaves gigabytes.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return [state]
    gathered: Optional[List[Any]] = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(state, gathered, dst=0, group=_cpu_group(dist.group.WORLD))
    return gathered or []


@lru_cache(maxsize=1)
def _cpu_group(world: Any) -> Any:
    """*world*, the default group, if it is gloo's; else a gloo group beside it, made at the first checkpoint."""
    return world if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def present_rank() -> int:
    """The rank of this process; 0 without distributed training."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of ranks; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
