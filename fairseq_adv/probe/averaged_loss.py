"""A loss averaged over batches, with its gradient and its Hessian-vector products, one batch at a time."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, ContextManager, Dict, Iterator, List, Sequence

import torch
from torch import Tensor

# One tensor for each parameter, in the order of AveragedLoss.parameters.
Direction = List[Tensor]


@dataclass(frozen=True)
class AveragedLoss:
    """``Σ term() / weight`` as a function of *parameters*.

    Each term runs one batch and returns its loss as a sum, in nats; *weight* is what the sums count, such as target
    tokens. A term must not be random: dropout off. No graph outlives its batch.
    """

    parameters: Dict[str, Tensor]
    terms: Sequence[Callable[[], Tensor]]
    weight: float

    def value(self) -> float:
        """The loss at the present parameters."""
        with torch.no_grad():
            return sum(float(term().double()) for term in self.terms) / self.weight

    def gradient(self) -> Direction:
        """∂loss/∂θ, in fp32 at least; zero for a parameter that the loss does not use."""
        total = self.zero()
        for term in self.terms:
            _add(total, torch.autograd.grad(term(), self._leaves(), allow_unused=True))
        return [part / self.weight for part in total]

    def hessian_times(self, direction: Direction) -> Direction:
        """∂²loss/∂θ² · *direction*, by a second backward pass (Pearlmutter 1994)."""
        total = self.zero()
        for term in self.terms:
            with twice_differentiable():
                gradient = torch.autograd.grad(term(), self._leaves(), create_graph=True, allow_unused=True)
                used = [(g, d) for g, d in zip(gradient, direction) if g is not None and g.requires_grad]
                if not used:  # linear in every parameter
                    continue
                along = torch.stack([(g * d).sum() for g, d in used]).sum()
                _add(total, torch.autograd.grad(along, self._leaves(), allow_unused=True))
        return [part / self.weight for part in total]

    def zero(self) -> Direction:
        """The direction that moves nothing."""
        return [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in self._leaves()]

    @contextmanager
    def moved(self, direction: Direction, distance: float = 1.0) -> Iterator[None]:
        """Inside, the parameters are θ + *distance* · *direction*; afterwards they are θ again, bit for bit."""
        before = [parameter.detach().clone() for parameter in self._leaves()]
        try:
            with torch.no_grad():
                for parameter, step in zip(self._leaves(), direction):
                    parameter.add_(step.to(parameter.dtype), alpha=distance)
            yield
        finally:
            with torch.no_grad():
                for parameter, saved in zip(self._leaves(), before):
                    parameter.copy_(saved)

    def _leaves(self) -> List[Tensor]:
        return list(self.parameters.values())


def _add(total: Direction, more: Sequence[object]) -> None:
    for part, term in zip(total, more):
        if isinstance(term, Tensor):
            part.add_(term.detach())


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Kernels that can be differentiated twice: the fused ones of attention and of cuDNN's LSTM cannot."""
    with _plain_attention(), torch.backends.cudnn.flags(enabled=False):
        yield


def _plain_attention() -> ContextManager[None]:
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:  # before torch 2.3
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False)
    return sdpa_kernel(SDPBackend.MATH)


def dot(a: Direction, b: Direction) -> float:
    """The inner product over all parameters, summed in fp64."""
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b))


def length(direction: Direction) -> float:
    """The ℓ2 norm over all parameters together."""
    return dot(direction, direction) ** 0.5


def scaled(direction: Direction, factor: float) -> Direction:
    return [part * factor for part in direction]
