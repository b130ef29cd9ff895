"""Perturbations of word embeddings: layout, norm balls, noise, the hook that adds them, and the ascent.

Everything here takes tensors and modules; torch is the only import.
"""

from __future__ import annotations

from fairseq_adv.perturb.ascent import projected_gradient_ascent
from fairseq_adv.perturb.balls import Ball
from fairseq_adv.perturb.hooks import EmbeddingHook
from fairseq_adv.perturb.layout import SIDES, Perturbation, place_on_tokens, real_token_mask
from fairseq_adv.perturb.noise import initial_perturbation, sample_noise
from fairseq_adv.perturb.passes import BatchPasses, Output
from fairseq_adv.perturb.rng import RngState

__all__ = [
    "SIDES",
    "Ball",
    "BatchPasses",
    "EmbeddingHook",
    "Output",
    "Perturbation",
    "RngState",
    "initial_perturbation",
    "place_on_tokens",
    "projected_gradient_ascent",
    "real_token_mask",
    "sample_noise",
]
