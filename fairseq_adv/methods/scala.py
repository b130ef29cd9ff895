"""ScaLA-style noise: exactly one ascent step from a tiny random start, on the worker's own rows.

What is published (Zhang et al. 2022, "ScaLA: Accelerating Adaptation of Pre-Trained Transformer-Based Language Models
via Efficient Large-Batch Adversarial Noise") is the idea: adversarial noise against the sharp minima of large
batches, and its cost as the bottleneck. No reference code exists; the instantiation below is ours.
"""

from __future__ import annotations

from typing import Callable, Tuple

from torch import Tensor

from fairseq_adv.methods.r3f import noise_perturbation
from fairseq_adv.perturb import Ball, BatchPasses, Output, Perturbation
from fairseq_adv.perturb.ascent import ascent_step, nonfinite_rows


def one_step_noise(
    passes: BatchPasses,
    divergence: Callable[[Output], Tensor],
    sigma: float,
    radius: float,
    step_size: float,
    seed: int,
    stream: int,
) -> Tuple[Perturbation, Tensor]:
    """δ = Π_ω(δ⁰ + ρ g/‖g‖), δ⁰ ~ σ N(0, 1), g = ∂KL(p ‖ f(x + δ⁰))/∂δ with p held fixed.

    *divergence* is that KL as a function of f(x + δ); *radius* is ω, *step_size* ρ, both norms of a sentence. Returns δ
    and ``B`` (bool): sentences whose gradient was not finite; their δ is zero.
    """
    start = noise_perturbation(passes, "normal", sigma, seed, stream)
    gradient = passes.gradient(divergence, start)
    broken = nonfinite_rows(list(gradient.values.values()))
    return ascent_step(start, gradient, Ball(radius), step_size).zero_rows(broken), broken
