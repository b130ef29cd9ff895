"""Losses of a block of logits and their gradients in closed form, written over the logits.

For a row with p = softmax(z_p), q = softmax(z_q) and d = z_p − z_q:

- label-smoothed cross-entropy, t = 1 − ε on the reference word and ε' = ε/(V − 1) on each other (fairseq's definition):
  ∂/∂z = p − t, that is p − ε' everywhere and 1 − ε − ε' less on the reference word;
- KL(p‖q): ∂/∂z_p = p (d − Σ p d), ∂/∂z_q = q − p;
- KL(q‖p): ∂/∂z_p = p − q, ∂/∂z_q = −q (d − Σ q d).

Where z_p and z_q are equal, the gradient of a divergence is zero bit for bit, and its value for ``sym-kl``. A block
should fit into a CPU's cache: the code goes over it a dozen times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import torch
from torch import Tensor

# Rows of the table of values: of each side cross-entropy, negative log-likelihood, whether the best word is the
# reference word; and the divergence.
CROSS_ENTROPY, NLL, CORRECT, DIVERGENCE, NUM_VALUES = (0, 3), (1, 4), (2, 5), 6, 7


@dataclass(frozen=True)
class LossTerms:
    """``clean`` · CE(p) + ``perturbed`` · CE(q) + ``divergence`` · ℓ_v(p, q), ℓ_v of *kind* ``kl`` or ``sym-kl``.

    With *detach_p* the divergence has no gradient towards p. *smoothing* is fairseq's ε; with *count_correct* the words
    that an output with a cross-entropy gets right are counted.
    """

    clean: float = 0.0
    perturbed: float = 0.0
    divergence: float = 0.0
    kind: str = "sym-kl"
    detach_p: bool = False
    smoothing: float = 0.0
    count_correct: bool = False

    def of_side(self, side: int) -> float:
        """The weight of the cross-entropy of p (0) or q (1)."""
        return (self.clean, self.perturbed)[side]

    def reach(self, side: int) -> bool:
        """Whether anything has a gradient towards p (0) or q (1)."""
        return bool(self.of_side(side) or (self.divergence and not (side == 0 and self.detach_p)))

    def on_words(self, num_words: int) -> Tuple[float, float]:
        """What t holds on every word, ε', and what it holds on the reference word beyond that."""
        each = self.smoothing / (num_words - 1)
        return each, 1.0 - self.smoothing - each


class Scratch:
    """Three buffers ``rows x V`` in which one block after the other is worked on."""

    def __init__(self, rows: int, num_words: int, dtype: torch.dtype, device: torch.device) -> None:
        self._buffers = [torch.empty(rows, num_words, dtype=dtype, device=device) for _ in range(3)]

    def of(self, rows: int) -> Tuple[Tensor, Tensor, Tensor]:
        """The buffers, cut to *rows*."""
        first, second, third = (buffer[:rows] for buffer in self._buffers)
        return first, second, third


def single_gradient_(
    z: Tensor, target: Tensor, terms: LossTerms, side: int, values: Tensor, scratch: Scratch, wanted: bool
) -> None:
    """Overwrite the logits *z* (``R x V``) of one *side* with the gradient of its weighted cross-entropy, if *wanted*.

    *target* is ``R``; *values* (``7 x R``) gets the losses of the rows.
    """
    p = scratch.of(z.size(0))[0]
    log_sum = _softmax(z, p)
    _cross_entropy(z, log_sum, target, terms, side, values)
    if wanted:
        _finish(z, None, p, target, terms, side)


def pair_gradients_(
    z_p: Tensor,
    z_q: Tensor,
    target: Tensor,
    terms: LossTerms,
    values: Tensor,
    scratch: Scratch,
    wanted: Tuple[bool, bool],
) -> None:
    """Overwrite the logits of both sides (``R x V`` each) with the gradients of all *terms*, of a side if *wanted*.

    *target* is ``R``; *values* (``7 x R``) gets the losses of the rows.
    """
    p, q, rest = scratch.of(z_p.size(0))
    symmetric = terms.kind == "sym-kl"
    log_sums = _softmax(z_p, p), _softmax(z_q, q)
    for side, z in enumerate((z_p, z_q)):
        if terms.of_side(side):
            _cross_entropy(z, log_sums[side], target, terms, side, values)
    d = torch.sub(z_p, z_q, out=z_p)
    mean_p = torch.mul(p, d, out=rest).sum(-1)  # Σ p d
    mean_q = torch.mul(q, d, out=rest).sum(-1) if symmetric else None
    values[DIVERGENCE] = 0.5 * (mean_p - mean_q) if mean_q is not None else mean_p - (log_sums[0] - log_sums[1])
    weight = terms.divergence * (0.5 if symmetric else 1.0)
    q_less_p = torch.sub(q, p, out=z_q)
    if wanted[1] and mean_q is not None:
        torch.sub(d, mean_q.unsqueeze(1), out=rest)
    if wanted[0]:
        towards_p: Optional[Tensor] = None
        if not terms.detach_p:
            towards_p = d.sub_(mean_p.unsqueeze(1)).mul_(p)
            towards_p = towards_p.sub_(q_less_p) if symmetric else towards_p
        _finish(z_p, towards_p, p, target, terms, 0, weight)
    if wanted[1]:
        towards_q = q_less_p.addcmul_(q, rest, value=-1) if symmetric else q_less_p
        _finish(z_q, towards_q, q, target, terms, 1, weight)


def _finish(
    z: Tensor,
    divergence: Optional[Tensor],
    softmax: Tensor,
    target: Tensor,
    terms: LossTerms,
    side: int,
    weight: float = 0.0,
) -> None:
    """Put the gradient of one *side* into *z*: *weight* · *divergence*, which lies there, and the cross-entropy's.

    *softmax* is spent.
    """
    share = terms.of_side(side)
    if divergence is None:
        z.zero_()
    elif weight != 1.0:
        z.mul_(weight)
    if share:
        each, more = terms.on_words(z.size(1))
        z.add_(softmax.sub_(each) if each else softmax, alpha=share)
        z.scatter_add_(1, target.unsqueeze(1), z.new_full((len(z), 1), -share * more))


def _softmax(z: Tensor, out: Tensor) -> Tensor:
    """Softmax of the rows of *z*; returns ``R``: the log of each row's sum of exponentials."""
    torch.softmax(z, -1, out=out)
    return z.amax(-1) - out.amax(-1).log()  # the best word's log-probability is the one that is best conditioned


def _cross_entropy(z: Tensor, log_sum: Tensor, target: Tensor, terms: LossTerms, side: int, values: Tensor) -> None:
    """Fill *values* with the cross-entropy and the likelihood of the rows; *log_sum* is ``R``."""
    each, more = terms.on_words(z.size(1))
    nll = log_sum - z.gather(1, target.unsqueeze(1)).squeeze(1)
    values[NLL[side]] = nll
    smooth = each * (z.size(1) * log_sum - z.sum(-1)) if each else 0.0
    values[CROSS_ENTROPY[side]] = more * nll + smooth
    if terms.count_correct:
        values[CORRECT[side]] = z.argmax(-1).eq(target).to(values.dtype)
