"""ARCH's Algorithm 3 for sentences in plain torch, one row at a time, written from the paper: slow, obvious.

Random numbers are the package's stream, which has an oracle of its own; outputs and divergences are those of the unit
tests' reference.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple

import torch
from torch import Tensor

from fairseq_adv.perturb.noise import sample_noise
from tests.unit.criterions import sentence_reference as sent


class Rule(NamedTuple):
    """How δ is started and moved: ARCH's appendix B.1 on whole sentences, or B.2 word by word."""

    epsilon: float
    steps: int
    step_size: float
    start_sigma: float = 0.0  # of an unscaled normal start, with raw gradients in ℓ∞ balls; 0: B.1

    def start(self, sample_id: int, length: int, dim: int, seed: int, epoch: int) -> Tensor:
        kind = "normal" if self.start_sigma else "uniform"
        noise = sample_noise(kind, torch.tensor([sample_id]), length, dim, seed, epoch, "src")[0]
        if self.start_sigma:
            return (noise * self.start_sigma).clamp(-self.epsilon, self.epsilon)
        return noise * (self.epsilon / noise.norm())

    def moved(self, delta: Tensor, gradient: Tensor) -> Tensor:
        if self.start_sigma:
            return (delta + self.step_size * gradient).clamp(-self.epsilon, self.epsilon)
        delta = delta + self.step_size * gradient / gradient.norm()
        return delta * min(1.0, self.epsilon / float(delta.norm()))


def worst_case(model: Any, tokens: Tensor, sample_id: int, epoch: int, seed: int, rule: Rule) -> Tensor:
    """Algorithm 1 for one row of *tokens* (``S``): δ^S, ``S x D``."""
    batch = {"net_input": {"src_tokens": tokens.unsqueeze(0)}}
    dim = model.encoder.sentence_encoder.embed_tokens.weight.size(1)
    delta = rule.start(sample_id, len(tokens), dim, seed, epoch)
    clean = sent.output(model, batch, {}).detach()
    for _ in range(rule.steps):
        leaf = delta.clone().requires_grad_()
        divergence = sent.symmetric(clean, sent.output(model, batch, {"src": leaf.unsqueeze(0)}))
        delta = rule.moved(delta, torch.autograd.grad(divergence, leaf)[0])
    return delta


def moving_average(cache: Dict[int, Tensor], sample_id: int, new: Tensor, alpha: float) -> None:
    """Algorithm 3: C[i] ← α C[i] + (1 − α) δ^S; the first time C[i] = δ^S."""
    cache[sample_id] = alpha * cache[sample_id] + (1 - alpha) * new if sample_id in cache else new


def from_neighbors(cache: Dict[int, Tensor], neighbor_ids: List[int], length: int) -> Tensor:
    """Eq. 3: every word gets the mean over the neighbours of their mean word vector."""
    means = [sum(row for row in cache[j]) / len(cache[j]) for j in neighbor_ids]
    return torch.stack([sum(means) / len(means)] * length)


def rows(sample: Dict[str, Any], pad: int) -> List[Tuple[int, Tensor]]:
    """(sample id, tokens ``S``) of each row of a batch, padding cut off."""
    tokens = sample["net_input"]["src_tokens"]
    return [(i, row[row != pad]) for i, row in zip(sample["id"].tolist(), tokens)]
