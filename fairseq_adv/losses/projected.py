"""Outputs whose logits are not there yet: features, and the projection that would make logits of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

# In fp16 a chunk's gradient of the logits is scaled to this largest value: that of a divergence of 1e-6 nats would
# underflow, and fp16 ends at 65,504.
_LARGEST_FP16 = 256.0


class Projected(NamedTuple):
    """Features ``N x D`` and the linear projection ``V x D`` (with its bias ``V``) to the logits ``N x V``."""

    features: Tensor
    weight: Tensor
    bias: Optional[Tensor] = None

    def detach(self) -> Projected:
        """The same output, through which no gradient flows: neither to the features nor to the projection.

        It goes on with the values that the projection has now, also where a parameter is given other ones.
        """
        bias = None if self.bias is None else self.bias.detach()
        return Projected(self.features.detach(), self.weight.detach(), bias)

    def with_fixed_projection(self) -> Projected:
        """The same output, through which gradients flow to the features alone: what an ascent needs."""
        return self.detach()._replace(features=self.features)

    def chunk(self, chunks: int) -> Tuple[Projected, ...]:
        """The outputs of *chunks* batches that went through one pass."""
        return tuple(self._replace(features=features) for features in self.features.chunk(chunks))

    def index_select(self, dim: int, index: Tensor) -> Projected:
        """The output of the rows *index*; *dim* is 0."""
        return self._replace(features=self.features.index_select(dim, index))

    def dtype(self) -> torch.dtype:
        """What a linear layer would give, inside autocast or outside."""
        with torch.no_grad():
            return F.linear(self.features[:0], self.weight[:1]).dtype

    @torch.no_grad()
    def hold_logits(self) -> HeldLogits:
        """The output with its logits, ``N x V`` numbers: for one that many others are compared with."""
        return HeldLogits(F.linear(self.features, self.weight, self.bias))


class HeldLogits(NamedTuple):
    """Logits ``N x V`` that no gradient flows through."""

    logits: Tensor

    def detach(self) -> HeldLogits:
        """The same."""
        return self

    def chunk(self, chunks: int) -> Tuple[HeldLogits, ...]:
        """Equal parts of the rows, in order."""
        return tuple(HeldLogits(logits) for logits in self.logits.chunk(chunks))

    def index_select(self, dim: int, index: Tensor) -> HeldLogits:
        """The rows *index*; *dim* is 0."""
        return HeldLogits(self.logits.index_select(dim, index))


Compared = Union[Projected, HeldLogits]


@dataclass
class Gradients:
    """Sums of gradients, ``None`` where none is wanted: ``N x D``, ``V x D`` and ``V``, at least fp32."""

    features: Optional[Tensor] = None
    weight: Optional[Tensor] = None
    bias: Optional[Tensor] = None

    def __bool__(self) -> bool:
        """Whether any is wanted."""
        return not (self.features is None and self.weight is None and self.bias is None)


class HeldSide:
    """Chunks of logits that are there already."""

    wants_gradient = False

    def __init__(self, logits: Tensor, exact: torch.dtype) -> None:
        self._logits, self._exact = logits, exact
        self._first = 0

    def project(self, rows: slice) -> None:
        """Turn to the chunk *rows*."""
        self._first = rows.start

    def logits(self, block: slice) -> Tensor:
        """A copy of the logits of a *block* of the chunk, exact, which may be overwritten."""
        return self._logits[self._first + block.start : self._first + block.stop].to(self._exact, copy=True)


class ProjectedSide:
    """Makes logits chunk by chunk, and of a chunk's gradient those of features and projection.

    What *gradients* has room for is added there; only rows in *mask* (``N``) count. Matrices are multiplied in *dtype*,
    chunks have *size* rows at most.
    """

    def __init__(self, output: Projected, dtype: torch.dtype, gradients: Gradients, mask: Tensor, size: int) -> None:
        self._exact = torch.promote_types(dtype, torch.float32)
        self._gradients, self.wants_gradient = gradients, bool(gradients)
        self._features, self._weight = output.features.to(dtype), output.weight.to(dtype)
        self._bias = None if output.bias is None else output.bias.to(dtype)
        self._counts = mask.unsqueeze(1)  # N x 1
        self._buffer = self._features.new_empty(size, self._weight.size(0))
        self._rows = slice(0, 0)
        self._factor: Any = 1.0  # what the gradient in the buffer has been multiplied by

    def project(self, rows: slice) -> None:
        """Compute the logits of the chunk *rows*."""
        self._rows = rows
        features, out = self._features[rows], self._chunk()
        if self._bias is None:
            torch.mm(features, self._weight.t(), out=out)
        else:
            torch.addmm(self._bias, features, self._weight.t(), out=out)

    def logits(self, block: slice) -> Tensor:
        """The logits of a *block* of the chunk, exact: the chunk's own memory, or a copy in full precision."""
        return self._buffer[block].to(self._exact)

    def put_gradient(self, block: slice, gradient: Tensor) -> None:
        """Keep the *gradient* of a block's logits; in half precision a chunk is one block."""
        self._factor = 1.0
        if gradient.dtype == self._buffer.dtype:
            return  # it was written over the logits
        if self._buffer.dtype == torch.float16:
            largest = gradient.abs().amax(1).nan_to_num(0.0, posinf=0.0).amax()  # a broken row spoils no other
            self._factor = _LARGEST_FP16 / largest.clamp(min=1e-30)
        torch.mul(gradient, self._factor, out=self._buffer[block])

    def absorb(self) -> None:
        """Add what the chunk's gradient means for features and projection."""
        gradient, counts = self._chunk(), self._counts[self._rows].to(self._exact)
        wanted, dtype = self._gradients, self._buffer.dtype
        if wanted.features is not None:
            own = torch.mm(gradient, self._weight).to(self._exact)
            torch.mul(own, counts / self._factor, out=wanted.features[self._rows])
        if wanted.weight is not None:
            self._add_sums(wanted.weight, gradient, self._features[self._rows] * counts.to(dtype))
        if wanted.bias is not None:
            self._add_sums(wanted.bias.unsqueeze(1), gradient, counts.to(dtype))

    def _add_sums(self, total: Tensor, gradient: Tensor, factors: Tensor) -> None:
        """Add to *total* (``V x D``) the sums over rows of *gradient* (``R x V``) times *factors* (``R x D``)."""
        if gradient.dtype == self._exact:
            total.addmm_(gradient.t(), factors)
            return
        rows = len(factors)  # means of rows do not overflow where sums might
        total.add_(torch.mm(gradient.t(), factors / rows).to(self._exact).mul_(rows / self._factor))

    def _chunk(self) -> Tensor:
        return self._buffer[: self._rows.stop - self._rows.start]


Side = Union[HeldSide, ProjectedSide]


def sides_of(
    outputs: Sequence[Compared], dtype: torch.dtype, rooms: Sequence[Gradients], mask: Tensor, size: int
) -> Sequence[Side]:
    """What makes the logits of each of *outputs*."""
    exact = torch.promote_types(dtype, torch.float32)
    return [
        HeldSide(output.logits, exact)
        if isinstance(output, HeldLogits)
        else ProjectedSide(output, dtype, room, mask, size)
        for output, room in zip(outputs, rooms)
    ]
