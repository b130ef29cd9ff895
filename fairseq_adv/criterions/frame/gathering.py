"""State of all ranks for a checkpoint, which only the first rank writes."""

from __future__ import annotations

from typing import Any, List, Optional

import torch.distributed as dist


def gather_on_first_rank(state: Any) -> List[Any]:
    """On rank 0 the *state* of every rank in order, elsewhere nothing. Every rank must call it."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return [state]
    gathered: Optional[List[Any]] = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(state, gathered, dst=0)
    return gathered or []


def present_rank() -> int:
    """The rank of this process; 0 without distributed training."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of ranks; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
