"""State of torch's generators, so that extra passes can replay dropout masks and leave no trace."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, Optional

import torch
from torch import Tensor


@dataclass(frozen=True)
class RngState:
    """The states of the CPU generator and, if *device* is a GPU, of that GPU's."""

    cpu: Tensor
    cuda: Optional[Tensor]
    device: torch.device

    @classmethod
    def capture(cls, device: torch.device) -> RngState:
        """The state now; dropout on *device* draws from it."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), cuda, device)

    def restore(self) -> None:
        """Set the generators back: the next pass draws the masks that the pass after :meth:`capture` drew."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)


@contextmanager
def untouched_rng(device: torch.device) -> Iterator[None]:
    """Whatever the block draws, the generators are afterwards as they were before."""
    state = RngState.capture(device)
    try:
        yield
    finally:
        state.restore()


def reseed_from_state() -> None:
    """Start a fresh stream that is determined by the present state but shares no number with its continuation.

    Masks drawn after this differ from those that the next pass of plain training draws.
    """
    seed = int(torch.randint(0, 2**62, (1,), dtype=torch.int64).item())
    torch.manual_seed(seed)
