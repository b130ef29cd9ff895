"""Divergences between the outputs of two passes, by themselves and fused with what makes logits; torch only."""

from __future__ import annotations

from fairseq_adv.losses.divergence import DIVERGENCES, masked_divergence, token_divergence
from fairseq_adv.losses.fused import FusedLoss, fused_loss
from fairseq_adv.losses.logit_gradients import LossTerms
from fairseq_adv.losses.projected import HeldLogits, Projected

__all__ = [
    "DIVERGENCES",
    "FusedLoss",
    "HeldLogits",
    "LossTerms",
    "Projected",
    "fused_loss",
    "masked_divergence",
    "token_divergence",
]
