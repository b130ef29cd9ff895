"""VAT for translation (Sato, Suzuki and Kiyono 2019, "Effective Adversarial Regularization for NMT")."""

from __future__ import annotations

from typing import Callable, Tuple

from torch import Tensor

from fairseq_adv.perturb import Ball, BatchPasses, Output, Perturbation, initial_perturbation
from fairseq_adv.perturb.ascent import nonfinite_rows


def virtual_adversarial_perturbation(
    passes: BatchPasses, divergence: Callable[[Output], Tensor], epsilon: float, seed: int, stream: int
) -> Tuple[Perturbation, Tensor]:
    """δ = ε g/‖g‖ (Eq. 13), g the gradient of the divergence at a normal start of unit sentence norm.

    *divergence* compares an output with the clean one, which is held fixed.
    Returns δ and ``B`` (bool): sentences whose gradient was not finite; their δ is zero.
    """
    unit = Ball(1.0)
    start = initial_perturbation("normal", passes.ids, passes.masks, passes.dims, unit, 1.0, seed, stream)
    gradient = passes.gradient(divergence, start)
    broken = nonfinite_rows(list(gradient.values.values()))
    return gradient.map(lambda g, mask: unit.scaled_to(g, mask, epsilon)).zero_rows(broken), broken
