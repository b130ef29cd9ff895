"""Norm balls: norm, projection and ascent direction in ℓ2 or ℓ∞, over a whole sentence or each word."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

NORMS = ("l2", "linf")
LEVELS = ("sentence", "word")


@dataclass(frozen=True)
class Ball:
    """The set {δ : ‖δ‖ ≤ epsilon}, one for each sentence (``level="sentence"``) or each word (``"word"``).

    A sentence's norm runs over all its real tokens × D of one side, a word's over D. Tensors are
    ``B x L x D`` in canonical layout with mask ``B x L``; padding stays exactly zero.
    """

    epsilon: float
    norm: str = "l2"
    level: str = "sentence"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}: choose one of {', '.join(NORMS)}")
        if self.level not in LEVELS:
            raise ValueError(f"unknown level {self.level!r}: choose one of {', '.join(LEVELS)}")
        if not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"the radius epsilon must be finite and >= 0, got {self.epsilon}")

    def _dims(self) -> tuple:
        return (1, 2) if self.level == "sentence" else (2,)

    def norms(self, delta: Tensor, mask: Tensor) -> Tensor:
        """The norm of each sentence (``B x 1 x 1``) or word (``B x L x 1``).

        The largest coordinate is divided out first: squares of the tiny gradients of a divergence underflow in fp32.
        """
        delta = delta.masked_fill(~mask.unsqueeze(-1), 0.0)
        largest = delta.abs().amax(dim=self._dims(), keepdim=True)
        if self.norm == "linf":
            return largest
        safe = largest.masked_fill(largest == 0, 1.0)
        return largest * (delta / safe).square().sum(dim=self._dims(), keepdim=True).sqrt()

    def direction(self, gradient: Tensor, mask: Tensor) -> Tensor:
        """g/‖g‖ (a zero gradient stays zero): ℓ2 as in ARCH's Algorithm 1, ℓ∞ as in SMART's g/‖g‖∞."""
        return self.scaled_to(gradient, mask, 1.0)

    def scaled_to(self, delta: Tensor, mask: Tensor, norm: float) -> Tensor:
        """δ rescaled so that every non-zero sentence or word has exactly this *norm*."""
        delta = delta.masked_fill(~mask.unsqueeze(-1), 0.0)
        norms = self.norms(delta, mask)
        return delta / norms.masked_fill(norms == 0, 1.0) * norm

    def project(self, delta: Tensor, mask: Tensor) -> Tensor:
        """Π_ε: the nearest point of the ball in ℓ2, for ``linf`` coordinate by coordinate."""
        delta = delta.masked_fill(~mask.unsqueeze(-1), 0.0)
        if self.norm == "linf":
            return delta.clamp(-self.epsilon, self.epsilon)
        norms = self.norms(delta, mask)
        factor = self.epsilon / norms.clamp(min=self.epsilon).masked_fill(norms == 0, 1.0)
        return delta * factor.clamp(max=1.0)
