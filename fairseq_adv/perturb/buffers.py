"""Buffers that a pass in training mode moves, so that extra passes can begin as the clean one did.

Such are the running statistics of batch norms, and the vectors from which a spectral norm is estimated
(``--spectral-norm-classification-head``): each pass moves them by one power iteration and divides weights by the
estimate, so that a second pass has other weights.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, List

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm


class MovingBuffers:
    """The buffers of *model* that each of its passes moves; false if there are none."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if moves_buffers(module)]

    def __bool__(self) -> bool:
        return bool(self._modules)

    def capture(self) -> List[Tensor]:
        """Copies of the values now."""
        return [buffer.clone() for buffer in self._buffers()]

    def restore(self, values: List[Tensor]) -> None:
        """Set the buffers to what :meth:`capture` returned; graphs of passes in between stay valid."""
        for buffer, value in zip(self._buffers(), values):
            buffer.data.copy_(value)  # not counted as a change: what graphs have saved of a buffer is a copy

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """However the passes in the block move the buffers, afterwards they are as they were before."""
        values = self.capture()
        try:
            yield
        finally:
            self.restore(values)

    def _buffers(self) -> Iterator[Tensor]:
        return (buffer for module in self._modules for buffer in module.buffers(recurse=False))


def moves_buffers(module: nn.Module) -> bool:
    """Whether a pass of *module* in training mode changes buffers of its own."""
    if isinstance(module, _NormBase):
        return module.track_running_stats
    estimates = any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())
    return estimates or isinstance(module, _SpectralNorm)
