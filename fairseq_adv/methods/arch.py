"""ARCH: adversarial regularisation with caching (Zuo et al. 2021, "ARCH: Efficient Adversarial Regularized Training
with Caching"): when perturbations are renewed and what uncached samples get. The ascent is in
``worst_case.py``, the moving average with the cache.
"""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor


def is_refresh_epoch(epoch: int, last_refresh: Optional[int], interval: float) -> bool:
    """Whether *epoch* regenerates every perturbation: the first one, then each *interval* (Tc) epochs.

    Counted from the last refresh, so that a delayed start shifts the schedule; Tc = inf refreshes once. An epoch
    before the last refresh means that the epochs were counted anew, and starts anew too.
    """
    return (
        last_refresh is None or epoch < last_refresh or (not math.isinf(interval) and epoch >= last_refresh + interval)
    )


def perturbation_from_neighbors(
    means: Tensor, norms: Tensor, found: Tensor, mask: Tensor, rescale: bool = False
) -> Tensor:
    """δ of samples that are not cached (Eq. 3), ``B x L x D``: each word gets the mean over the neighbours' mean word.

    *means* ``B x K x D`` holds the token mean of each neighbour's perturbation, *norms* ``B x K`` its sentence
    norm, *found* ``B x K`` whether it is in the cache (a sample without any such neighbour gets zero), *mask*
    ``B x L`` the real tokens. Averaging over tokens shrinks the norm by about √length; with *rescale* (ours) the
    sentence norm is set to the mean of the neighbours' norms.
    """
    weight = found.to(means.dtype)
    count = weight.sum(dim=1, keepdim=True).clamp(min=1.0)  # B x 1
    row = (means * weight.unsqueeze(-1)).sum(dim=1) / count  # B x D
    if rescale:
        target = (norms * weight).sum(dim=1, keepdim=True) / count  # B x 1
        length = mask.sum(dim=1, keepdim=True).clamp(min=1)
        own = row.norm(dim=1, keepdim=True) * length.sqrt()
        row = row * torch.where(own > 0, target / own.masked_fill(own == 0, 1.0), torch.zeros_like(own))
    return row.unsqueeze(1) * mask.unsqueeze(-1)
