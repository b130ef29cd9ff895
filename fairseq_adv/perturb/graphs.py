"""Passes that nothing is propagated back through."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import torch


@contextmanager
def no_graph() -> Iterator[None]:
    """``torch.no_grad`` that is safe inside autocast, which keeps one half-precision copy of each weight for a while.

    A copy made before would hide values that the block lends to the weights; one made here would, in older releases of
    torch, have no gradient to give to the passes that follow.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)
