"""A slow, obvious reference for sentences: loops over rows, definitions as printed, no code of the package.

What it has in common with ``reference.py``: perturbations ``B x S x D`` in the columns of the batch, as precomputed
word embeddings, and steps and balls sentence by sentence.
"""

from __future__ import annotations

from typing import Any, Dict

import torch
from torch import Tensor

from tests.unit.criterions.reference import PAD, Columns
from tests.unit.sentence_models import HEAD


def word_embeddings(model: Any, batch: Dict[str, Any]) -> Tensor:
    """Rows of the embedding table, ``B x S x D``."""
    weight = model.encoder.sentence_encoder.embed_tokens.weight
    return torch.nn.functional.embedding(batch["net_input"]["src_tokens"], weight, padding_idx=PAD)


def scores_of(model: Any, batch: Dict[str, Any], words: Tensor) -> Tensor:
    """The head's scores ``B x C`` (or the number ``B x 1``) from word embeddings."""
    encoded = model.encoder.sentence_encoder(batch["net_input"]["src_tokens"], token_embeddings=words)
    return model.classification_heads[HEAD](encoded["encoder_out"][0].transpose(0, 1))


def output(model: Any, batch: Dict[str, Any], delta: Columns) -> Tensor:
    """The head's scores at x + *delta*."""
    words = word_embeddings(model, batch)
    return scores_of(model, batch, words + delta["src"] if delta else words)


def task_loss(scores: Tensor, batch: Dict[str, Any]) -> Tensor:
    """Σ over sentences of −log p(class), or of (f − y)²."""
    total = scores.new_zeros(())
    for row, target in zip(scores, batch["target"].view(-1)):
        if len(row) == 1:
            total = total + (row[0] - target) ** 2
        else:
            total = total - (row[target] - row.exp().sum().log())
    return total


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Σ over sentences of Σ_c p_c (log p_c − log q_c); of numbers (f(x) − f(x + δ))²."""
    total = p.new_zeros(())
    for row_p, row_q in zip(p, q):
        if len(row_p) == 1:
            total = total + (row_p[0] - row_q[0]) ** 2
        else:
            log_p, log_q = (row - row.exp().sum().log() for row in (row_p, row_q))
            total = total + (log_p.exp() * (log_p - log_q)).sum()
    return total


def symmetric(p: Tensor, q: Tensor) -> Tensor:
    """½ [KL(p‖q) + KL(q‖p)]; of numbers (f(x) − f(x + δ))²."""
    return 0.5 * (kl(p, q) + kl(q, p))


def zeros(model: Any, batch: Dict[str, Any]) -> Columns:
    """δ = 0."""
    return {"src": torch.zeros_like(word_embeddings(model, batch))}
