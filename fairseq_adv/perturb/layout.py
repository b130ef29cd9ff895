"""Canonical layout: a perturbation belongs to (sample, k-th real token), never to a (row, column).

A batch's perturbation of one side is a tensor ``B x L x D`` in which index ``k`` of the second
dimension is the k-th token that is not padding, and everything behind the sentence's last real
token is zero. Where the padding sits (fairseq pads sources on the left and targets on the right;
the LSTM encoder flips that before it embeds) matters only when the perturbation is placed on the
columns of the tokens that an embedding receives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Tuple

import torch
from torch import Tensor

SIDES: Tuple[str, str] = ("src", "tgt")


def real_token_mask(tokens: Tensor, pad: int) -> Tensor:
    """Mask ``B x L`` in canonical layout: row b holds as many leading ``True`` as it has real tokens.

    *tokens* is ``B x S``; L is S, so that no length has to be read back from a GPU.
    """
    lengths = tokens.ne(pad).sum(dim=1, keepdim=True)  # B x 1
    return torch.arange(tokens.size(1), device=tokens.device).unsqueeze(0) < lengths


def place_on_tokens(delta: Tensor, tokens: Tensor, pad: int) -> Tensor:
    """Move *delta* from canonical layout ``B x L x D`` to the columns of *tokens*: ``B x S x D``, zero on padding."""
    is_real = tokens.ne(pad)  # B x S
    index = (is_real.cumsum(dim=1) - 1).clamp(min=0, max=delta.size(1) - 1)  # B x S
    placed = delta.gather(1, index.unsqueeze(-1).expand(-1, -1, delta.size(2)))
    return placed.masked_fill(~is_real.unsqueeze(-1), 0.0)


@dataclass(frozen=True)
class Perturbation:
    """δ of one batch: for each perturbed side the values ``B x L x D`` (fp32) and the mask ``B x L`` of real tokens."""

    values: Dict[str, Tensor]
    masks: Dict[str, Tensor]

    @property
    def sides(self) -> List[str]:
        """The perturbed sides, a subset of ``("src", "tgt")``."""
        return list(self.values)

    def map(self, function: Callable[[Tensor, Tensor], Tensor]) -> Perturbation:
        """A new perturbation with ``function(values, mask)`` applied to each side."""
        return Perturbation({s: function(v, self.masks[s]) for s, v in self.values.items()}, self.masks)

    def zero_rows(self, rows: Tensor) -> Perturbation:
        """δ with both sides of the sentences marked in *rows* (``B``, bool) set to zero."""
        return self.map(lambda values, _: values.masked_fill(rows.view(-1, 1, 1), 0.0))

    def where(self, rows: List[bool], other: Perturbation) -> Perturbation:
        """δ of the sentences in *rows*, and the *other* perturbation of the rest."""
        if all(rows) or not any(rows):
            return self if all(rows) else other
        chosen = torch.tensor(rows).view(-1, 1, 1)
        values = {s: torch.where(chosen.to(v.device), v, other.values[s]) for s, v in self.values.items()}
        return Perturbation(values, self.masks)

    def rows(self, index: Tensor) -> Perturbation:
        """δ of the sentences at *index* (``n``) alone."""
        masks = {side: mask.index_select(0, index) for side, mask in self.masks.items()}
        return Perturbation({side: values.index_select(0, index) for side, values in self.values.items()}, masks)

    def with_rows(self, index: Tensor, part: Perturbation) -> Perturbation:
        """A new perturbation that has *part* for its sentences at *index* (``n``)."""
        values = {side: mine.index_copy(0, index, part.values[side]) for side, mine in self.values.items()}
        return Perturbation(values, self.masks)

    def detached(self) -> Perturbation:
        """The same values without a graph."""
        return self.map(lambda values, _: values.detach())

    def sentences(self, side: str) -> List[Tensor]:
        """One ``len_i x D`` tensor on the CPU for each sentence, real tokens only: the form in which it is cached."""
        lengths = self.masks[side].sum(dim=1).tolist()
        values = self.values[side].detach().float().cpu()
        return [values[i, :length] for i, length in enumerate(lengths)]

    def sentence_norms(self, side: str) -> Tensor:
        """ℓ2 norm over all real tokens × D of each sentence: ``B``."""
        return self.values[side].float().flatten(1).norm(dim=1)
