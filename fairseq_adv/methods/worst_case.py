"""The inner maximisation that ARCH, SMART and VAT share: a perturbation that changes the output most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from torch import Tensor

from fairseq_adv.losses import masked_divergence
from fairseq_adv.perturb import Ball, BatchPasses, Perturbation, initial_perturbation


@dataclass(frozen=True)
class Ascent:
    """The inner maximisation's settings: ball, S steps of length η, start, divergence."""

    ball: Ball
    steps: int
    step_size: float
    init: str
    init_scale: float
    divergence: str
    seed: int

    def start(self, passes: BatchPasses, stream: int) -> Perturbation:
        """The random start δ⁰; *stream* (the epoch) separates the starts of one sample."""
        return initial_perturbation(
            self.init, passes.ids, passes.masks, passes.dims, self.ball, self.init_scale, self.seed, stream
        )


def worst_case_perturbation(
    passes: BatchPasses, log_p: Tensor, target_mask: Tensor, ascent: Ascent, stream: int
) -> Tuple[Perturbation, Tensor]:
    """δ^S of ARCH's Algorithm 1, lines 3-7: from a random start, S projected ascent steps on ℓ_v(x, δ).

    *log_p* (``N x V``) is the clean output. Returns δ^S and
    ``B`` (bool): sentences whose gradient was not finite; their δ is zero.
    """
    clean = log_p.detach()
    return passes.ascend(
        lambda log_q: masked_divergence(clean, log_q, target_mask, ascent.divergence),
        ascent.start(passes, stream),
        ascent.ball,
        ascent.steps,
        ascent.step_size,
    )
