"""Data augmentation for translation: training sources that read otherwise in each epoch."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.data import BaseWrapperDataset
from torch import Tensor


class SourceAugmentation(BaseWrapperDataset):
    """The source sentences of a data set, changed by :meth:`changed`; (seed, epoch, sentence) decide how.

    Sizes stay those of the sentences as they are: fairseq batches by them.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        super().__init__(dataset)
        self._seed, self._epoch = seed, 1

    def changed(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """One sentence (T) with what *generator* draws for it."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Tensor:
        seed = (self._seed * 1_000_003 + self._epoch) * 100_000_007 + int(index)
        return self.changed(self.dataset[index], torch.Generator().manual_seed(seed % 2**64))  # all that a seed may be

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """The batches stay; what is in them is read anew."""
        return True

    def set_epoch(self, epoch: int) -> None:
        """Draw anew."""
        super().set_epoch(epoch)
        self._epoch = epoch


def read_sources(dataset: Any, augmented: SourceAugmentation) -> None:
    """Let the translation *dataset* give the sources of *augmented*; its lengths, targets and sample ids stay."""
    dataset.src = augmented
    dataset.set_epoch = augmented.set_epoch
