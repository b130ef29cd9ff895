"""How much of a small perturbation a half-precision word embedding rounds away."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 512  # of the embedding table that are looked at


def share_lost_to_rounding(weight: Tensor, row_norm: float) -> float:
    """The share of coordinates that x + δ leaves as they are in x, over rows x of *weight* (``V x D``, half precision).

    δ points anywhere with ℓ2 norm *row_norm* for a word. A coordinate is lost if δ is below half the distance of two
    neighbouring numbers at x; nothing is ever lost in fp32, where perturbations are at home.
    """
    rows = weight.detach()[-ROWS:]  # special symbols stand first
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(rows.shape, generator=generator).to(rows.device)
    delta = delta * (row_norm / delta.norm(dim=1, keepdim=True))
    moved = rows + delta.to(rows.dtype)
    return float((moved == rows).float().mean())
