"""The inner maximisation that ARCH, SMART and VAT share: a perturbation that changes the output most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Tuple

from torch import Tensor

from fairseq_adv.perturb import Ball, BatchPasses, Output, Perturbation, initial_perturbation


@dataclass(frozen=True)
class Ascent:
    """The inner maximisation's settings: ball, S steps of length η, start."""

    ball: Ball
    steps: int
    step_size: float
    init: str
    init_scale: float
    seed: int
    init_sigma: float = 0.0  # the start unscaled, in place of init_scale
    normalised: bool = True  # steps along g/‖g‖; else η g itself

    def start(self, passes: BatchPasses, stream: int) -> Perturbation:
        """The random start δ⁰; *stream* (the epoch) separates the starts of one sample."""
        return initial_perturbation(
            self.init,
            passes.ids,
            passes.masks,
            passes.dims,
            self.ball,
            self.init_scale,
            self.seed,
            stream,
            self.init_sigma,
        )


def worst_case_perturbation(
    passes: BatchPasses, divergence: Callable[[Output], Tensor], ascent: Ascent, stream: int
) -> Tuple[Perturbation, Tensor]:
    """δ^S of ARCH's Algorithm 1, lines 3-7: from a random start, S projected ascent steps on ℓ_v(x, δ).

    *divergence* is ℓ_v from the clean output, held fixed, to the output it is given. Returns δ^S and ``B`` (bool):
    sentences whose gradient was not finite; their δ is zero.
    """
    start = ascent.start(passes, stream)
    return passes.ascend(divergence, start, ascent.ball, ascent.steps, ascent.step_size, ascent.normalised)
