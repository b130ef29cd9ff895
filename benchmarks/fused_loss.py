#!/usr/bin/env python3
"""The loss alone, from features to their gradients: all logits at once against the vocabulary fused.

    python benchmarks/fused_loss.py --words 4000 32000

Three losses: label-smoothed cross-entropy (plain training), the same with KL(p‖q) of two outputs (a method's update),
and KL(p‖q) with the gradient to q alone (a step of an ascent). Times are the process's own CPU time with one thread,
which other programs leave alone: medians over rounds, in which all take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Callable, Dict, List

import torch
import torch.nn.functional as F
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from machine import commit, cpu_name
from torch import Tensor

from fairseq_adv.losses import LossTerms, Projected, fused_loss, masked_divergence

SMOOTHING, PAD = 0.1, 1
PLAIN = LossTerms(clean=1.0, smoothing=SMOOTHING)
UPDATE = LossTerms(clean=1.0, divergence=1.0, kind="kl", smoothing=SMOOTHING)
ASCENT = LossTerms(divergence=1.0, kind="kl", detach_p=True)


class Losses:
    """The three losses, each by both ways, on random features ``N x D`` and a projection ``V x D``."""

    def __init__(self, tokens: int, dim: int, words: int) -> None:
        torch.manual_seed(1)
        self.weight = (torch.randn(words, dim) * dim**-0.5).requires_grad_()
        self.p = torch.randn(tokens, dim).requires_grad_()
        self.q = (self.p.detach() + 0.1 * torch.randn(tokens, dim)).requires_grad_()
        self.target = torch.randint(4, words, (tokens,))
        self.mask = torch.ones(tokens, dtype=torch.bool)
        self._held = self._log_probs(self.p).detach(), Projected(self.p, self.weight).detach().hold_logits()

    def ways(self) -> Dict[str, Callable[[], object]]:
        return {
            "cross-entropy": lambda: self._cross_entropy(self._log_probs(self.p)).backward(),
            "cross-entropy, fused": lambda: self._fused(PLAIN).backward(),
            "with divergence": lambda: self._update().backward(),
            "with divergence, fused": lambda: self._fused(UPDATE).backward(),
            "ascent": self._ascent,
            "ascent, fused": self._fused_ascent,
        }

    def _log_probs(self, features: Tensor) -> Tensor:
        return F.log_softmax(F.linear(features, self.weight), dim=-1)

    def _cross_entropy(self, log_probs: Tensor) -> Tensor:
        loss: Tensor = label_smoothed_nll_loss(log_probs, self.target, SMOOTHING, ignore_index=PAD)[0]
        return loss

    def _update(self) -> Tensor:
        p, q = self._log_probs(self.p), self._log_probs(self.q)
        return self._cross_entropy(p) + masked_divergence(p, q, self.mask, "kl")

    def _ascent(self) -> object:
        divergence = masked_divergence(self._held[0], self._log_probs(self.q), self.mask, "kl", detach_p=True)
        return torch.autograd.grad(divergence, self.q)

    def _fused(self, terms: LossTerms) -> Tensor:
        q = Projected(self.q, self.weight) if terms.divergence else None
        return fused_loss(Projected(self.p, self.weight), q, self.target, self.mask, terms).total

    def _fused_ascent(self) -> object:
        q = Projected(self.q, self.weight).with_fixed_projection()
        return torch.autograd.grad(fused_loss(self._held[1], q, self.target, self.mask, ASCENT).total, self.q)

    def forget(self) -> None:
        for leaf in (self.weight, self.p, self.q):
            leaf.grad = None


def measure(losses: Losses, rounds: int) -> Dict[str, float]:
    """Median milliseconds of each way."""
    times: Dict[str, List[float]] = {name: [] for name in losses.ways()}
    for number in range(rounds + 1):
        for name, run in losses.ways().items():
            losses.forget()
            started = time.process_time()
            run()
            if number > 0:  # the first round warms up
                times[name].append(1000 * (time.process_time() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, nargs="+", default=[4000, 32000], help="of the vocabulary (4000 32000)")
    parser.add_argument("--tokens", type=int, default=1024, help="of the batch (1024)")
    parser.add_argument("--dim", type=int, default=256, help="of the features (256)")
    parser.add_argument("--rounds", type=int, default=5, help="that count (5)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{cpu_name()}, 1 thread; torch {torch.__version__}; commit {commit()}; {args.tokens} x {args.dim} features\n"
    )
    print("| words | loss | all logits, ms | fused, ms | ratio |\n|---:|---|---:|---:|---:|")
    for words in args.words:
        found = measure(Losses(args.tokens, args.dim, words), args.rounds)
        for name in [name for name in found if not name.endswith(", fused")]:
            full, fused = found[name], found[f"{name}, fused"]
            print(f"| {words} | {name} | {full:.0f} | {fused:.0f} | {fused / full:.2f} |")


if __name__ == "__main__":
    main()
