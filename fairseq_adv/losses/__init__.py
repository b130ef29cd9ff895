"""Divergences between the outputs of two passes; torch is the only import."""

from __future__ import annotations

from fairseq_adv.losses.divergence import DIVERGENCES, masked_divergence, token_divergence

__all__ = ["DIVERGENCES", "masked_divergence", "token_divergence"]
