"""Projection, cross-entropy and divergence in one, chunk by chunk of rows: logits are never held beyond a chunk.

The gradients towards features, weight and bias are made in the forward pass, while a chunk's logits are there; the
backward pass only multiplies them by what arrives from above (a loss scale, 1/K of FreeLB). Beside the features
there are thus the chunks of logits, a few small blocks, and one gradient of the size of the projection.
"""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from fairseq_adv.losses.divergence import DIVERGENCES
from fairseq_adv.losses.logit_gradients import (
    CORRECT,
    CROSS_ENTROPY,
    DIVERGENCE,
    NLL,
    NUM_VALUES,
    LossTerms,
    Scratch,
    pair_gradients_,
    single_gradient_,
)
from fairseq_adv.losses.projected import Compared, Gradients, HeldLogits, Projected, ProjectedSide, sides_of

# Logits of one output that are held at once, and those that are worked on at once: on a CPU what its cache holds.
_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 24}
_BLOCK = {"cpu": 1 << 18, "cuda": 1 << 24}


class FusedLoss(NamedTuple):
    """``total`` has a graph. The other values, sums over the rows that count, have none; side 0 is p, side 1 is q."""

    total: Tensor
    values: Tensor

    def cross_entropy(self, side: int) -> Tensor:
        """The label-smoothed cross-entropy of an output where it has a weight, in nats."""
        return self.values[CROSS_ENTROPY[side]]

    def nll(self, side: int) -> Tensor:
        """Its negative log-likelihood, in nats."""
        return self.values[NLL[side]]

    def correct(self, side: int) -> Tensor:
        """How many reference words are its best words, if they were to be counted."""
        return self.values[CORRECT[side]].long()

    @property
    def divergence(self) -> Tensor:
        """ℓ_v without its weight, in nats."""
        return self.values[DIVERGENCE]


def fused_loss(p: Compared, q: Optional[Projected], target: Tensor, mask: Tensor, terms: LossTerms) -> FusedLoss:
    """All *terms* of one output, or of two, summed over the rows in *mask* (``N``, bool).

    *target* (``N``) holds the reference words; a row outside *mask* may hold any word. Gradients flow to whatever asks
    for them; where both outputs have one projection, its gradient arrives once. Raises ``ValueError`` for an unknown
    divergence, ``RuntimeError`` in a second backward pass over one graph: the first uses the gradients up.
    """
    if terms.kind not in DIVERGENCES:
        raise ValueError(f"unknown divergence {terms.kind!r}: choose one of {', '.join(DIVERGENCES)}")
    outputs: List[Compared] = [p] if q is None else [p, q]
    reached = [torch.is_grad_enabled() and terms.reach(side) for side in range(len(outputs))]
    outputs = [output if reach else output.detach() for output, reach in zip(outputs, reached)]
    dtype = p.logits.dtype if isinstance(p, HeldLogits) else p.dtype()
    tensors = [tensor for output in outputs for tensor in _three(output)]
    total, values = _FusedLoss.apply(terms, dtype, target, mask, *tensors)
    return FusedLoss(total, values)


def _three(output: Compared) -> Tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    return (output.logits, None, None) if isinstance(output, HeldLogits) else (*output,)


def _from_three(first: Tensor, weight: Optional[Tensor], bias: Optional[Tensor]) -> Compared:
    return HeldLogits(first) if weight is None else Projected(first, weight, bias)


class _FusedLoss(torch.autograd.Function):
    """*tensors* are three for each output: features, weight, bias; or logits and twice ``None``."""

    @staticmethod
    def forward(
        ctx: Any, terms: LossTerms, dtype: torch.dtype, target: Tensor, mask: Tensor, *tensors: Any
    ) -> Tuple[Tensor, Tensor]:
        outputs = [_from_three(*tensors[n : n + 3]) for n in range(0, len(tensors), 3)]
        needed = ctx.needs_input_grad[4:]
        with torch.autocast(target.device.type, enabled=False):
            rooms = _rooms(outputs, [needed[3 * n : 3 * n + 3] for n in range(len(outputs))], terms, dtype)
            values = _run(terms, dtype, target, mask, outputs, rooms)
            total = _weighted(values, terms)
        ctx.gradients = _once(rooms)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in tensors]
        ctx.mark_non_differentiable(values)
        return total, values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tuple[Optional[Tensor], ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of this loss were used up by an earlier backward pass over its graph")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if g is None else g.mul_(upstream[0]).to(dtype) for g, dtype in zip(gradients, ctx.dtypes)]
        return (None, None, None, None, *scaled)


def _rooms(
    outputs: Sequence[Compared], needed: Sequence[Sequence[bool]], terms: LossTerms, dtype: torch.dtype
) -> List[Gradients]:
    """Zeros for each gradient that is *needed*; two outputs with one projection have one room for its gradient."""
    exact = torch.promote_types(dtype, torch.float32)
    rooms: List[Gradients] = []
    for side, (output, wanted) in enumerate(zip(outputs, needed)):
        shared = bool(rooms) and rooms[0].weight is not None and _one_projection(*outputs)
        features, weight, bias = (
            torch.zeros_like(tensor, dtype=exact) if tensor is not None and want and terms.reach(side) else None
            for tensor, want in zip(_three(output), (wanted[0], wanted[1] and not shared, wanted[2] and not shared))
        )
        if shared and terms.reach(side):
            weight, bias = rooms[0].weight, rooms[0].bias
        rooms.append(Gradients(features, weight, bias))
    return rooms


def _one_projection(p: Compared, q: Compared) -> bool:
    """Whether both are projected by the same parameters."""
    return isinstance(p, Projected) and isinstance(q, Projected) and p.weight is q.weight and p.bias is q.bias


def _once(rooms: Sequence[Gradients]) -> List[Optional[Tensor]]:
    """The gradients in the order of the inputs; one that two outputs share is given to the first."""
    found: List[Optional[Tensor]] = []
    for room in rooms:
        for gradient in (room.features, room.weight, room.bias):
            found.append(None if any(gradient is other for other in found) else gradient)
    return found


def _run(
    terms: LossTerms,
    dtype: torch.dtype,
    target: Tensor,
    mask: Tensor,
    outputs: Sequence[Compared],
    rooms: Sequence[Gradients],
) -> Tensor:
    """Fill *rooms*; returns the sums of the values, ``7``."""
    last = outputs[-1]
    assert isinstance(last, Projected)
    rows, num_words, device = len(target), last.weight.size(0), target.device
    exact = torch.promote_types(dtype, torch.float32)
    chunk = _rows_of(_CHUNK, device, num_words, rows)
    block = _rows_of(_BLOCK, device, num_words, chunk) if dtype == exact else chunk
    sides = sides_of(outputs, dtype, rooms, mask, chunk)
    scratch = Scratch(block, num_words, exact, device)
    values = torch.zeros(NUM_VALUES, rows, dtype=exact, device=device)
    for first in range(0, rows, chunk):
        last_row = min(rows, first + chunk)
        for side in sides:
            side.project(slice(first, last_row))
        for start in range(first, last_row, block):
            present = slice(start, min(start + block, last_row))
            inside = slice(present.start - first, present.stop - first)
            _one_block(terms, sides, inside, target[present], values[:, present], scratch)
        for side in sides:
            if isinstance(side, ProjectedSide) and side.wants_gradient:
                side.absorb()
    return values.masked_fill(~mask, 0.0).sum(1)


def _one_block(
    terms: LossTerms, sides: Sequence[Any], block: slice, target: Tensor, values: Tensor, scratch: Scratch
) -> None:
    logits = [side.logits(block) for side in sides]
    wanted = [side.wants_gradient for side in sides]
    if len(logits) == 1:
        single_gradient_(logits[0], target, terms, 0, values, scratch, wanted[0])
    else:
        pair_gradients_(logits[0], logits[1], target, terms, values, scratch, (wanted[0], wanted[1]))
    for side, gradient in zip(sides, logits):
        if side.wants_gradient:
            side.put_gradient(block, gradient)


def _rows_of(size: Any, device: torch.device, num_words: int, most: int) -> int:
    """How many rows of *num_words* logits a piece of *size* numbers has, *most* at most."""
    return max(1, min(most, size.get(device.type, size["cuda"]) // num_words))


def _weighted(values: Tensor, terms: LossTerms) -> Tensor:
    """The total: the weighted values, added up in the order in which they would be without fusing."""
    parts = ((CROSS_ENTROPY[0], terms.clean), (CROSS_ENTROPY[1], terms.perturbed), (DIVERGENCE, terms.divergence))
    terms_present = [values[row] * weight for row, weight in parts if weight]
    return sum(terms_present[1:], terms_present[0]) if terms_present else values.new_zeros(())
