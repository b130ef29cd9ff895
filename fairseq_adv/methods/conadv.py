"""ConAdv (Liu et al. 2022, "Concurrent Adversarial Learning for Large-Batch Training"): one step on the loss.

δ = α g/‖g‖, g the gradient of the sample's own loss, local to the worker. The paper's split BatchNorm has no
counterpart in a Transformer.
"""

from __future__ import annotations

from typing import Callable, Tuple

from torch import Tensor

from fairseq_adv.perturb import Ball, Perturbation
from fairseq_adv.perturb.ascent import nonfinite_rows, perturbation_gradient


def along(gradient: Perturbation, alpha: float) -> Perturbation:
    """α g/‖g‖ for each side of each sentence; a zero gradient stays zero."""
    ball = Ball(alpha)
    return gradient.map(lambda g, mask: ball.scaled_to(g, mask, alpha))


def step_from_clean(
    loss: Callable[[Perturbation], Tensor], zero: Perturbation, alpha: float
) -> Tuple[Perturbation, Tensor]:
    """α g/‖g‖ with g = ∂loss/∂δ at δ = 0, without a gradient for any parameter.

    *loss* may be scaled by any factor. Returns δ and ``B`` (bool): sentences whose gradient was not finite; their δ is
    zero.
    """
    gradient = perturbation_gradient(loss, zero)
    broken = nonfinite_rows(list(gradient.values.values()))
    return along(gradient.zero_rows(broken), alpha), broken
