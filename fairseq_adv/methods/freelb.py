"""FreeLB (Zhu et al. 2020): K ascent steps whose backward passes train the parameters as well."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Tuple

import torch
from torch import Tensor

from fairseq_adv.perturb import Ball, BatchPasses, Output, Perturbation
from fairseq_adv.perturb.ascent import ascent_step, nonfinite_rows


def leaf_of(delta: Perturbation) -> Perturbation:
    """δ as leaves of a new graph: a backward pass leaves its gradient on them."""
    return delta.map(lambda values, _: values.detach().clone().requires_grad_())


def gradient_left_on(leaf: Perturbation) -> Tuple[Perturbation, Tensor]:
    """The gradient that a backward pass left on *leaf*, and ``B`` (bool): sentences where it was not finite.

    Zero for a side that the output does not depend on, as in :func:`perturbation_gradient`.
    """
    gradients = {s: torch.zeros_like(v) if v.grad is None else v.grad for s, v in leaf.values.items()}
    broken = nonfinite_rows(list(gradients.values()))
    return Perturbation(gradients, leaf.masks).zero_rows(broken), broken


def freelb_terms(
    passes: BatchPasses,
    task_loss: Callable[[Output], Tensor],
    start: Perturbation,
    ball: Ball,
    steps: int,
    step_size: float,
    log: Dict[str, Any],
) -> Iterator[Tensor]:
    """CE(x + δᵏ)/K for k = 1 … K (Algorithm 1); between two terms the caller runs the backward pass.

    All passes share the first one's dropout masks. *log* gets ``adv_loss`` (the mean of the K task losses) and
    ``adv_nonfinite``, and keeps the last δ's norms.
    """
    delta, nonfinite = start, torch.zeros((), dtype=torch.long, device=passes.ids.device)
    for k in range(steps):
        leaf = leaf_of(delta)
        output = passes.clean(leaf) if k == 0 else passes.perturbed(leaf, shared_masks=True)
        log.update({f"adv_norm_{side}": leaf.detached().sentence_norms(side).sum() for side in leaf.sides})
        term = task_loss(output) / steps
        log["adv_loss"] = log.get("adv_loss", 0) + term.data
        yield term
        if k < steps - 1:
            gradient, broken = gradient_left_on(leaf)
            delta = ascent_step(delta, gradient, ball, step_size).zero_rows(broken)
            nonfinite = nonfinite + broken.sum()
            log["adv_nonfinite"] = nonfinite
