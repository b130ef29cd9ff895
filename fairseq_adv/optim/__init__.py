"""Optimizers and the learning-rate scheduler for large batches, registered with fairseq on import."""

from fairseq_adv.optim.adamw import AdamW, AdvAdamW
from fairseq_adv.optim.inverse_sqrt_batch import InverseSqrtBatch
from fairseq_adv.optim.lamb import AdvLamb, Lamb
from fairseq_adv.optim.lars import AdvLars, Lars

__all__ = ["AdamW", "AdvAdamW", "AdvLamb", "AdvLars", "InverseSqrtBatch", "Lamb", "Lars"]
