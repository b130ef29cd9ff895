"""ARCH's Algorithm 3 in plain torch, one sentence at a time, written from the paper: slow, obvious, none of our code.

The only thing taken from the package is the stream of random numbers, which has an oracle of its own.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, nn

from fairseq_adv.perturb.noise import sample_noise


class FixedEmbedding(nn.Module):
    """Stands in for ``embed_tokens`` and returns given vectors, so that x + δ needs no hook."""

    def __init__(self, original: nn.Module, vectors: Tensor) -> None:
        super().__init__()
        self.padding_idx = original.padding_idx
        self.vectors = vectors

    def forward(self, tokens: Tensor) -> Tensor:
        assert tokens.shape == self.vectors.shape[:2]
        return self.vectors


def distribution(model: Any, source: Tensor, prefix: Tensor, src_delta: Tensor, tgt_delta: Tensor) -> Tensor:
    """softmax f(x + δ), ``T x V``, for one sentence without padding."""
    encoder_table, decoder_table = model.encoder.embed_tokens, model.decoder.embed_tokens
    try:
        model.encoder.embed_tokens = FixedEmbedding(encoder_table, encoder_table.weight[source] + src_delta)
        model.decoder.embed_tokens = FixedEmbedding(decoder_table, decoder_table.weight[prefix] + tgt_delta)
        logits = model(source, torch.tensor([source.size(1)]), prefix)[0]
    finally:
        model.encoder.embed_tokens, model.decoder.embed_tokens = encoder_table, decoder_table
    return torch.softmax(logits[0].double(), dim=-1)


def symmetric_kl(p: Tensor, q: Tensor) -> Tensor:
    """½ Σ_tokens [KL(p‖q) + KL(q‖p)]."""
    return 0.5 * ((p * (p / q).log()).sum() + (q * (q / p).log()).sum())


def project(delta: Tensor, epsilon: float) -> Tensor:
    norm = float(sum(x * x for x in delta.flatten().tolist()) ** 0.5)
    return delta if norm <= epsilon else delta * (epsilon / norm)


def worst_case(
    model: Any, source: Tensor, prefix: Tensor, sample_id: int, epoch: int, seed: int,
    epsilon: float, steps: int, step_size: float,
) -> Dict[str, Tensor]:  # fmt: skip
    """Algorithm 1: δ⁰ uniform and of norm ε, then S times δ ← Π_ε(δ + η g/‖g‖), each side by itself."""
    dim = model.encoder.embed_tokens.weight.size(1)
    delta = {}
    for side, tokens in (("src", source), ("tgt", prefix)):
        noise = sample_noise("uniform", torch.tensor([sample_id]), tokens.size(1), dim, seed, epoch, side)
        delta[side] = noise * (epsilon / noise.norm())
    with torch.no_grad():
        p = distribution(model, source, prefix, torch.zeros(()), torch.zeros(()))
    for _ in range(steps):
        leaves = {side: value.clone().requires_grad_() for side, value in delta.items()}
        loss = symmetric_kl(p, distribution(model, source, prefix, leaves["src"], leaves["tgt"]))
        gradients = torch.autograd.grad(loss, [leaves["src"], leaves["tgt"]])
        for side, gradient in zip(("src", "tgt"), gradients):
            delta[side] = project(delta[side] + step_size * gradient / gradient.norm(), epsilon)
    return {side: value[0] for side, value in delta.items()}


def moving_average(cache: Dict[int, Dict[str, Tensor]], sample_id: int, new: Dict[str, Tensor], alpha: float) -> None:
    """Algorithm 3: C[i] ← α C[i] + (1 − α) δ^S; the first time C[i] = δ^S."""
    old = cache.get(sample_id)
    cache[sample_id] = new if old is None else {s: alpha * old[s] + (1 - alpha) * new[s] for s in new}


def from_neighbors(cache: Dict[int, Dict[str, Tensor]], neighbor_ids: List[int], side: str, length: int) -> Tensor:
    """Eq. 3: every word gets the mean over the neighbours of their mean word vector."""
    means = [sum(row for row in cache[j][side]) / len(cache[j][side]) for j in neighbor_ids]
    return torch.stack([sum(means) / len(means)] * length)


def sentences(sample: dict, pad: int) -> List[Tuple[int, Tensor, Tensor]]:
    """(sample id, source ``1 x S``, target input ``1 x T``) of each row of a batch, padding cut off."""
    rows = []
    for row, sample_id in enumerate(sample["id"].tolist()):
        source = sample["net_input"]["src_tokens"][row]
        prefix = sample["net_input"]["prev_output_tokens"][row]
        rows.append((sample_id, source[source != pad].unsqueeze(0), prefix[prefix != pad].unsqueeze(0)))
    return rows
