"""Token cutoff of the source (Shen et al. 2020), in the place of the augmentation of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_adv.data.source_augmentation import SourceAugmentation


class SourceCutoff(SourceAugmentation):
    """Each token replaced by *unknown* with probability *share*; the end of the sentence stays."""

    def __init__(self, dataset: Any, share: float, unknown: int, end: int, seed: int) -> None:
        super().__init__(dataset, seed)
        self._share, self._unknown, self._end = share, unknown, end

    def changed(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        hidden = torch.rand(tokens.shape, generator=generator) < self._share
        return tokens.masked_fill(hidden & tokens.ne(self._end), self._unknown)
