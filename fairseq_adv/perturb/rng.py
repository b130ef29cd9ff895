"""State of torch's generators, so that extra passes can replay dropout masks and leave no trace."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, List

import torch
from torch import Tensor


def generators_of(device: torch.device) -> List[torch.Generator]:
    """The generators that passes on *device* draw from: the CPU's (layers that are left out), and a GPU's (dropout)."""
    if device.type != "cuda":
        return [torch.default_generator]
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]


@dataclass(frozen=True)
class RngState:
    """The states of :func:`generators_of` *device*; reading and setting them waits for no GPU."""

    states: List[Tensor]
    device: torch.device

    @classmethod
    def capture(cls, device: torch.device) -> RngState:
        """The state now; dropout on *device* draws from it."""
        return cls([generator.get_state() for generator in generators_of(device)], device)

    def restore(self) -> None:
        """Set the generators back: the next pass draws the masks that the pass after :meth:`capture` drew."""
        for generator, state in zip(generators_of(self.device), self.states):
            generator.set_state(state)


@contextmanager
def untouched_rng(device: torch.device) -> Iterator[None]:
    """Whatever the block draws, the generators are afterwards as they were before."""
    state = RngState.capture(device)
    try:
        yield
    finally:
        state.restore()


def reseed_from_state(device: torch.device, stream: int = 0) -> None:
    """Start a fresh stream that the present state determines but that shares no number with its continuation.

    Masks drawn after this differ from those that the next pass of plain training draws. The seed depends on the
    states of all generators of *device*: on a GPU dropout never advances the CPU's, which then is the same in each
    micro-batch of an update. *stream* separates passes that start at the same state.
    """
    generators = generators_of(device)
    drawn = int(torch.randint(0, 2**62, (1,), dtype=torch.int64).item())
    words = [generator.get_state().numpy().tobytes() for generator in generators[1:]]
    if stream:
        words.append(stream.to_bytes(8, "little"))
    if words:
        mixed = hashlib.blake2b(b"".join([drawn.to_bytes(8, "little"), *words]), digest_size=8)
        drawn = int.from_bytes(mixed.digest(), "little") >> 2
    for generator in generators:
        generator.manual_seed(drawn)
