"""Projected gradient ascent on a perturbation alone (Zuo et al. 2021, Algorithm 1; Madry et al. 2018)."""

from __future__ import annotations

from typing import Callable, List, Sequence, Tuple

import torch
from torch import Tensor

from fairseq_adv.perturb.balls import Ball
from fairseq_adv.perturb.layout import Perturbation

Objective = Callable[[Perturbation], Tensor]


def perturbation_gradient(objective: Objective, delta: Perturbation) -> Perturbation:
    """∂objective/∂δ, in fp32; no parameter gets a gradient and no gradient hook of a parameter runs.

    Zero for a side that the output does not depend on: LayerDrop may leave out every layer that looks at the source.
    """
    leaves = delta.map(lambda values, _: values.detach().float().requires_grad_())
    with torch.enable_grad():
        sides = list(leaves.values.values())
        gradients = torch.autograd.grad(objective(leaves), sides, allow_unused=True, materialize_grads=True)
    return Perturbation(dict(zip(leaves.values, gradients)), delta.masks)


def nonfinite_rows(sides: Sequence[Tensor]) -> Tensor:
    """``B`` (bool): the sentences with a NaN or an infinity on any side."""
    bad: List[Tensor] = [~torch.isfinite(values).flatten(1).all(dim=1) for values in sides]
    return torch.stack(bad).any(dim=0)


def ascent_step(
    delta: Perturbation, gradient: Perturbation, ball: Ball, step_size: float, normalised: bool = True
) -> Perturbation:
    """Π_ε(δ + η · g/‖g‖), each side and each sentence or word by itself; Π_ε(δ + η · g) if not *normalised*."""
    moved = {}
    for side, values in delta.values.items():
        mask, step = delta.masks[side], gradient.values[side]
        moved[side] = ball.project(values + step_size * (ball.direction(step, mask) if normalised else step), mask)
    return Perturbation(moved, delta.masks)


def projected_gradient_ascent(
    objective: Objective, start: Perturbation, ball: Ball, steps: int, step_size: float, normalised: bool = True
) -> Tuple[Perturbation, Tensor]:
    """*steps* times δ ← Π_ε(δ + η · g/‖g‖) from *start*, or δ ← Π_ε(δ + η · g) if not *normalised*.

    *objective* maps δ to a scalar, a sum over sentences. Returns δ (detached, fp32) and ``B`` (bool): the
    sentences whose gradient was not finite; their δ is zero on both sides.
    """
    delta = start
    broken = nonfinite_rows(list(start.values.values()))
    for _ in range(steps):
        gradient = perturbation_gradient(objective, delta)
        broken = broken | nonfinite_rows(list(gradient.values.values()))
        delta = ascent_step(delta, gradient, ball, step_size, normalised).zero_rows(broken)
    return delta.zero_rows(broken).detached(), broken
