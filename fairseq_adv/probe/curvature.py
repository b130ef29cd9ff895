"""Two numbers for the sharpness of a minimum: the Hessian's largest eigenvalue, and SAM's rise within a radius."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, List

import torch
from torch import Tensor

from fairseq_adv.probe.averaged_loss import AveragedLoss, Direction, dot, length, scaled

Product = Callable[[Direction], Direction]


@dataclass(frozen=True)
class Eigenvalue:
    """The largest eigenvalue; ``residual`` is ‖Hv − λv‖ for the unit vector v found, so it is off by no more than that.

    ``iterations`` counts Hessian-vector products.
    """

    value: float
    residual: float
    iterations: int


def largest_eigenvalue(loss: AveragedLoss, iterations: int = 50, tolerance: float = 1e-3, seed: int = 1) -> Eigenvalue:
    """The largest (not the absolutely largest) eigenvalue of the Hessian at the present parameters.

    Power iteration finds the eigenvalue of the largest magnitude. If that is negative, iterating on H − λI, whose
    eigenvalues are all ≥ 0, finds the largest. Stops at *iterations* products, or where the residual is below
    *tolerance* times the eigenvalue.
    """
    start = random_direction([part.shape for part in loss.zero()], seed, loss.zero())
    dominant = _power_iteration(loss.hessian_times, start, iterations, tolerance)
    if dominant.value >= 0:
        return dominant
    shift = dominant.value

    def shifted(direction: Direction) -> Direction:
        return [h - shift * d for h, d in zip(loss.hessian_times(direction), direction)]

    found = _power_iteration(shifted, start, iterations, tolerance)
    return Eigenvalue(found.value + shift, found.residual, found.iterations + dominant.iterations)


def _power_iteration(product: Product, start: Direction, iterations: int, tolerance: float) -> Eigenvalue:
    """v ← Hv/‖Hv‖ with the Rayleigh quotient vᵀHv (v of unit length) as the eigenvalue."""
    vector = scaled(start, 1 / length(start))
    found = Eigenvalue(math.nan, math.inf, 0)
    for count in range(1, iterations + 1):
        image = product(vector)
        value, size = dot(vector, image), length(image)
        residual = math.sqrt(max(0.0, size**2 - value**2))
        found = Eigenvalue(value, residual, count)
        if size == 0 or residual <= tolerance * abs(value):
            break
        vector = scaled(image, 1 / size)
    return found


def random_direction(shapes: List[torch.Size], seed: int, like: Direction) -> Direction:
    """Standard normal numbers from a generator of its own, on the CPU, so that every device draws the same."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(part.device) for shape, part in zip(shapes, like)]


def sam_rise(loss: AveragedLoss, radius: float, steps: int = 1) -> float:
    """max over ‖e‖ ≤ ρ of loss(θ + e) − loss(θ), approximately, in nats (Foret et al. 2021, Eq. 1 and 2).

    With one step e = ρ g/‖g‖, SAM's own; with more, each step goes ρ along the gradient at θ + e and returns to the
    ball, and the highest rise on the way counts. Never negative: e = 0 is allowed.
    """
    base, best = loss.value(), 0.0
    e = loss.zero()
    for _ in range(steps):
        with loss.moved(e):
            gradient = loss.gradient()
        size = length(gradient)
        if size == 0:
            break
        e = _into_ball([part + g * (radius / size) for part, g in zip(e, gradient)], radius)
        with loss.moved(e):
            best = max(best, loss.value() - base)
    return best


def _into_ball(direction: Direction, radius: float) -> Direction:
    size = length(direction)
    return direction if size <= radius else scaled(direction, radius / size)


def parameter_norm(loss: AveragedLoss) -> float:
    """‖θ‖ over the parameters of *loss*: what a radius ρ compares with."""
    parameters: List[Tensor] = [parameter.detach().float() for parameter in loss.parameters.values()]
    return length(parameters)
