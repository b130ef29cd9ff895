"""Passes that nothing is propagated back through, and passes that share nothing with those beside them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import torch


@contextmanager
def casting_anew() -> Iterator[None]:
    """Inside autocast, which keeps one half-precision copy of each weight for a while: make copies for each use.

    A copy that was made before is not used, and none is left for the passes that follow.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)


@contextmanager
def no_graph() -> Iterator[None]:
    """``torch.no_grad`` that is safe inside autocast.

    A copy of a weight made before would hide values that the block lends to the weights; one made here would, in older
    releases of torch, have no gradient to give to the passes that follow.
    """
    with casting_anew(), torch.no_grad():
        yield
