"""SimCut (Gao et al. 2022, "Bi-SimCut"): which words are cut off."""

from __future__ import annotations

from typing import Dict

from torch import Tensor

from fairseq_adv.perturb import BatchPasses, sample_noise


def kept_tokens(passes: BatchPasses, p: float, seed: int, stream: int) -> Dict[str, Tensor]:
    """For each side ``B x L`` (bool): the words that stay; each is cut off with probability *p* by itself."""
    keep = {}
    for side, mask in passes.masks.items():
        noise = sample_noise("uniform", passes.ids, mask.size(1), 1, seed, stream, side).squeeze(-1)  # U(-1, 1)
        keep[side] = noise >= 2.0 * p - 1.0
    return keep
