"""A slow, obvious reference for the criterions: loops over sentences, definitions as printed, no code of the package.

Perturbations are ``B x S x D`` in the columns of the batch (padding included, always zero there) and enter the
model as precomputed word embeddings. All arithmetic is in the dtype of the model, which tests set to double.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

import torch
from torch import Tensor, nn

PAD = 1
TOKENS = {"src": "src_tokens", "tgt": "prev_output_tokens"}
Columns = Dict[str, Tensor]


class _Precomputed(nn.Module):
    """Stands in for ``embed_tokens`` and returns the embeddings that it was given."""

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, _: Tensor) -> Tensor:
        return self.embeddings


@contextmanager
def _embedding_decoder(decoder: nn.Module, embeddings: Tensor) -> Iterator[None]:
    own = decoder.embed_tokens
    decoder.embed_tokens = _Precomputed(embeddings)
    try:
        yield
    finally:
        decoder.embed_tokens = own


def word_embeddings(model: Any, batch: Dict[str, Any], side: str) -> Tensor:
    """Rows of the embedding table, ``B x S x D``."""
    owner = {"src": model.encoder, "tgt": model.decoder}[side]
    tokens = batch["net_input"][TOKENS[side]]
    return torch.nn.functional.embedding(tokens, owner.embed_tokens.weight, padding_idx=PAD)


def log_probs_of(model: Any, batch: Dict[str, Any], source: Tensor, target: Tensor) -> Tensor:
    """Log-probs ``B x T x V`` of a fairseq transformer from word embeddings of both sides."""
    inputs = batch["net_input"]
    encoded = model.encoder(inputs["src_tokens"], inputs["src_lengths"], token_embeddings=source)
    with _embedding_decoder(model.decoder, target):
        logits = model.decoder(inputs["prev_output_tokens"], encoder_out=encoded)[0]
    return logits - logits.exp().sum(-1, keepdim=True).log()


def output(model: Any, batch: Dict[str, Any], delta: Columns) -> Tensor:
    """Log-probs ``B x T x V`` at x + *delta*; a side that is not named is clean."""
    embedded = {side: word_embeddings(model, batch, side) for side in TOKENS}
    shifted = {side: x + delta[side] if side in delta else x for side, x in embedded.items()}
    return log_probs_of(model, batch, shifted["src"], shifted["tgt"])


def cross_entropy(log_p: Tensor, batch: Dict[str, Any], smoothing: float = 0.1) -> Tensor:
    """Σ over real target tokens of −Σ_v t_v log p_v; t is 1 − ε on the reference word, ε/(V − 1) on each other."""
    total = log_p.new_zeros(())
    words = log_p.size(-1)
    for b, row in enumerate(batch["target"].tolist()):
        for t, word in enumerate(row):
            if word != PAD:
                truth = torch.full((words,), smoothing / (words - 1), dtype=log_p.dtype)
                truth[word] = 1.0 - smoothing
                total = total - (truth * log_p[b, t]).sum()
    return total


def kl(log_p: Tensor, log_q: Tensor, batch: Dict[str, Any]) -> Tensor:
    """Σ over real target tokens of Σ_v p_v (log p_v − log q_v)."""
    total = log_p.new_zeros(())
    for b, row in enumerate(batch["target"].tolist()):
        for t, word in enumerate(row):
            if word != PAD:
                total = total + (log_p[b, t].exp() * (log_p[b, t] - log_q[b, t])).sum()
    return total


def symmetric_kl(log_p: Tensor, log_q: Tensor, batch: Dict[str, Any]) -> Tensor:
    """½ [KL(p‖q) + KL(q‖p)]."""
    return 0.5 * (kl(log_p, log_q, batch) + kl(log_q, log_p, batch))


def real_columns(tokens: Tensor) -> List[List[int]]:
    """For each sentence the columns that hold a word."""
    return [[c for c, word in enumerate(row) if word != PAD] for row in tokens.tolist()]


def in_columns(values: Tensor, tokens: Tensor) -> Tensor:
    """Move the k-th row of each sentence of *values* (``B x L x D``) to the column of its k-th word."""
    placed = torch.zeros(*tokens.shape, values.size(-1), dtype=torch.float64)
    for b, columns in enumerate(real_columns(tokens)):
        for k, column in enumerate(columns):
            placed[b, column] = values[b, k]
    return placed


def each_sentence(delta: Columns, batch: Dict[str, Any], function: Callable[..., Tensor], *others: Columns) -> Columns:
    """*function* of the words (``n x D``) of each sentence and side by itself; *others* are handed over beside."""
    result = {}
    for side, values in delta.items():
        result[side] = torch.zeros_like(values)
        for b, columns in enumerate(real_columns(batch["net_input"][TOKENS[side]])):
            result[side][b, columns] = function(values[b, columns], *(o[side][b, columns] for o in others))
    return result


def of_norm(words: Tensor, norm: float) -> Tensor:
    """One sentence rescaled to ℓ2 *norm*."""
    return words * norm / words.square().sum().sqrt()


def clipped(words: Tensor, epsilon: float) -> Tensor:
    """One sentence pulled back to the ℓ2 ball of radius *epsilon* if it is outside."""
    norm = words.square().sum().sqrt().item()
    return words * epsilon / norm if norm > epsilon else words


def step(delta: Columns, gradient: Columns, batch: Dict[str, Any], eta: float, epsilon: float) -> Columns:
    """Π_ε(δ + η g/‖g‖₂) for each sentence and side."""
    return each_sentence(delta, batch, lambda d, g: clipped(d + of_norm(g, eta), epsilon), gradient)


def gradient_at(delta: Columns, objective: Callable[[Columns], Tensor]) -> Columns:
    """∂objective/∂δ."""
    leaves = {side: values.clone().requires_grad_() for side, values in delta.items()}
    return dict(zip(leaves, torch.autograd.grad(objective(leaves), list(leaves.values()))))


def zeros(model: Any, batch: Dict[str, Any], sides: Any = ("src", "tgt")) -> Columns:
    """δ = 0."""
    return {side: torch.zeros_like(word_embeddings(model, batch, side)) for side in sides}
