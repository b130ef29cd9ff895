"""Kullback-Leibler divergences between two softmax outputs, with a gradient that is exact at equality.

Differentiating Σ p (log p − log q) by parts leaves rounding noise of 1e-7 where p = q; training with a
zero perturbation would then drift from plain training. The closed forms below vanish bit for bit there.
"""

from __future__ import annotations

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

DIVERGENCES = ("kl", "sym-kl")


class _SoftmaxDivergence(torch.autograd.Function):
    """Divergence per row of two log-softmax outputs ``N x V``.

    The gradients are those with respect to the logits, z_p and z_q. As they sum to zero over V, the backward
    of log-softmax, g − softmax · Σg, hands them through unchanged.
    """

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor, symmetric: bool) -> Tensor:
        p, difference = log_p.exp(), log_p - log_q
        kl_pq = (p * difference).sum(-1)
        kl_qp = (log_q.exp() * difference).sum(-1).neg() if symmetric else None
        ctx.save_for_backward(log_p, log_q, kl_pq, kl_qp)
        return kl_pq if kl_qp is None else 0.5 * (kl_pq + kl_qp)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tuple[Optional[Tensor], Optional[Tensor], None]:
        log_p, log_q, kl_pq, kl_qp = ctx.saved_tensors
        upstream = grad_outputs[0].unsqueeze(-1) * (1.0 if kl_qp is None else 0.5)
        p, q, difference = log_p.exp(), log_q.exp(), log_p - log_q
        grad_p = grad_q = None
        if ctx.needs_input_grad[0]:
            grad_p = p * (difference - kl_pq.unsqueeze(-1))  # ∂KL(p‖q)/∂z_p
            grad_p = upstream * (grad_p if kl_qp is None else grad_p + (p - q))  # ∂KL(q‖p)/∂z_p
        if ctx.needs_input_grad[1]:
            grad_q = q - p  # ∂KL(p‖q)/∂z_q
            grad_q = upstream * (grad_q if kl_qp is None else grad_q - q * (difference + kl_qp.unsqueeze(-1)))
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
