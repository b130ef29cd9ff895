"""R3F (Aghajanyan et al. 2021): parametric noise instead of an inner maximisation."""

from __future__ import annotations

from fairseq_adv.perturb import BatchPasses, Perturbation, sample_noise


def noise_perturbation(passes: BatchPasses, distribution: str, sigma: float, seed: int, stream: int) -> Perturbation:
    """δ ~ N(0, σ²) or U(−σ, σ) on every real token of every perturbed side (Eq. 5), not rescaled to a norm."""
    values = {}
    for side, mask in passes.masks.items():
        noise = sample_noise(distribution, passes.ids, mask.size(1), passes.dims[side], seed, stream, side)
        values[side] = sigma * noise * mask.unsqueeze(-1)
    return Perturbation(values, passes.masks)
