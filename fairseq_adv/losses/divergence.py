"""Kullback-Leibler divergences between two softmax outputs, with a gradient that is exact at equality.

Differentiating Σ p (log p − log q) by parts leaves rounding noise of 1e-7 where p = q; training with a
zero perturbation would then drift from plain training. The closed forms below vanish bit for bit there.
"""

from __future__ import annotations

from typing import Any, Iterator, Optional, Tuple

import torch
from torch import Tensor

DIVERGENCES = ("kl", "sym-kl")


# Entries that are worked on at once: little beside the outputs themselves, and on a CPU they stay in its cache.
_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 24}


def _row_blocks(log_p: Tensor) -> Iterator[slice]:
    rows = max(1, _AT_ONCE.get(log_p.device.type, 1 << 24) // max(1, log_p.size(1)))
    return (slice(first, first + rows) for first in range(0, log_p.size(0), rows))


class _SoftmaxDivergence(torch.autograd.Function):
    """Divergence per row of two log-softmax outputs ``N x V``.

    The gradients are those with respect to the logits, z_p and z_q. As they sum to zero over V, the backward
    of log-softmax, g − softmax · Σg, hands them through unchanged. Besides log p, log q and the gradients nothing of
    size ``N x V`` is ever held.
    """

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor, symmetric: bool) -> Tensor:
        kl_pq = log_p.new_empty(log_p.size(0))
        kl_qp = torch.empty_like(kl_pq) if symmetric else None
        for rows in _row_blocks(log_p):
            difference = log_p[rows] - log_q[rows]
            kl_pq[rows] = (log_p[rows].exp() * difference).sum(-1)
            if kl_qp is not None:
                kl_qp[rows] = (log_q[rows].exp() * difference).sum(-1).neg()
        ctx.save_for_backward(log_p, log_q, kl_pq, kl_qp)
        return kl_pq if kl_qp is None else 0.5 * (kl_pq + kl_qp)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tuple[Optional[Tensor], Optional[Tensor], None]:
        log_p, log_q, kl_pq, kl_qp = ctx.saved_tensors
        upstream = (grad_outputs[0] * (1.0 if kl_qp is None else 0.5)).unsqueeze(-1)
        grad_p, grad_q = (torch.empty_like(log_p) if needed else None for needed in ctx.needs_input_grad[:2])
        for rows in _row_blocks(log_p):
            p, q, difference = log_p[rows].exp(), log_q[rows].exp(), log_p[rows] - log_q[rows]
            if grad_p is not None:
                of_p = p * (difference - kl_pq[rows].unsqueeze(-1))  # ∂KL(p‖q)/∂z_p
                if kl_qp is not None:
                    of_p += p - q  # ∂KL(q‖p)/∂z_p
                torch.mul(of_p, upstream[rows], out=grad_p[rows])
            if grad_q is not None:
                of_q = q - p  # ∂KL(p‖q)/∂z_q
                if kl_qp is not None:
                    of_q -= q * (difference + kl_qp[rows].unsqueeze(-1))  # ∂KL(q‖p)/∂z_q
                torch.mul(of_q, upstream[rows], out=grad_q[rows])
        return grad_p, grad_q, None


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def token_divergence(log_p: Tensor, log_q: Tensor, kind: str) -> Tensor:
    """KL(p‖q) (``kl``) or ½[KL(p‖q) + KL(q‖p)] (``sym-kl``) of each row, in nats: ``N``.

    *log_p* and *log_q* (``N x V``) must come from a log-softmax: the gradient is right only through one.
    """
    if kind not in DIVERGENCES:
        raise ValueError(f"unknown divergence {kind!r}: choose one of {', '.join(DIVERGENCES)}")
    return _SoftmaxDivergence.apply(_at_least_float32(log_p), _at_least_float32(log_q), kind == "sym-kl")


def masked_divergence(log_p: Tensor, log_q: Tensor, mask: Tensor, kind: str, detach_p: bool = False) -> Tensor:
    """The divergence summed over the rows in *mask* (``N``, bool): a scalar in nats.

    With *detach_p* no gradient flows through *log_p*, as in the ascent, where p is the clean output.
    """
    log_p = log_p.detach() if detach_p else log_p
    return token_divergence(log_p, log_q, kind).masked_fill(~mask, 0.0).sum()
