"""ConAdv (Liu et al. 2022, "Concurrent Adversarial Learning for Large-Batch Training"): one step on the loss.

δ = α g (Eq. 3) or α g/‖g‖, g the gradient of the sample's own loss, local to the worker, at x or at a random start
(Sec. 4.1). The paper's split BatchNorm has no counterpart in a Transformer.
"""

from __future__ import annotations

from typing import Callable, Optional, Tuple

from torch import Tensor

from fairseq_adv.perturb import Ball, Perturbation
from fairseq_adv.perturb.ascent import nonfinite_rows, perturbation_gradient


def along(gradient: Perturbation, alpha: float) -> Perturbation:
    """α g/‖g‖ for each side of each sentence; a zero gradient stays zero."""
    ball = Ball(alpha)
    return gradient.map(lambda g, mask: ball.scaled_to(g, mask, alpha))


def one_step(
    loss: Callable[[Perturbation], Tensor],
    zero: Perturbation,
    alpha: float,
    start: Optional[Perturbation] = None,
    normalised: bool = True,
    loss_scale: float = 1.0,
) -> Tuple[Perturbation, Tensor]:
    """One ascent step on the loss from *start* (``None``: from *zero*), without a gradient for any parameter.

    ``normalised``: Π_α(start + α g/‖g‖), from zero α g/‖g‖; otherwise start + α g, g the gradient of a sentence's
    summed loss. *loss* gives *loss_scale* times the sum over sentences. Returns δ and ``B`` (bool): sentences whose
    gradient was not finite; their δ is zero.
    """
    gradient = perturbation_gradient(loss, zero if start is None else start)
    broken = nonfinite_rows(list(gradient.values.values()))
    gradient = gradient.zero_rows(broken)
    step = along(gradient, alpha) if normalised else gradient.map(lambda g, _: g * (alpha / loss_scale))
    if start is None:
        return step, broken
    moved = Perturbation({side: start.values[side] + values for side, values in step.values.items()}, start.masks)
    return (moved.map(Ball(alpha).project) if normalised else moved).zero_rows(broken), broken
