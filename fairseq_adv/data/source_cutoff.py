"""Data augmentation for translation: source words that are hidden, others in each epoch."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.data import BaseWrapperDataset
from torch import Tensor


class SourceCutoff(BaseWrapperDataset):
    """The source sentences of a data set, each token replaced by *unknown* with probability *share*.

    Which ones depends on (seed, epoch, sentence) and on nothing else; the end of the sentence stays. It stands in
    for the augmentation of images that the large-batch papers use: token cutoff (Shen et al. 2020) on one side.
    """

    def __init__(self, dataset: Any, share: float, unknown: int, end: int, seed: int) -> None:
        super().__init__(dataset)
        self._share, self._unknown, self._end, self._seed, self._epoch = share, unknown, end, seed, 1

    def __getitem__(self, index: int) -> Tensor:
        tokens = self.dataset[index]
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self._epoch) * 100_000_007 + int(index))
        hidden = torch.rand(tokens.shape, generator=generator) < self._share
        return tokens.masked_fill(hidden & tokens.ne(self._end), self._unknown)

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """The batches stay; what is in them is read anew."""
        return True

    def set_epoch(self, epoch: int) -> None:
        """Hide other words."""
        super().set_epoch(epoch)
        self._epoch = epoch


def cut_sources(dataset: Any, share: float, unknown: int, end: int, seed: int) -> None:
    """Let the translation *dataset* give sources with hidden words; lengths, targets and sample ids stay."""
    dataset.src = SourceCutoff(dataset.src, share, unknown, end, seed)
    dataset.set_epoch = dataset.src.set_epoch
