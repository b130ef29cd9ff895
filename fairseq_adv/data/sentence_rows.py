"""The rows of a sentence data set in batches of like lengths, drawn anew in each epoch."""

from __future__ import annotations

from typing import Any, List

import numpy as np
from fairseq.data import BaseWrapperDataset


class SentenceRows(BaseWrapperDataset):
    """Rows (single sentences, or pairs as one input) ordered by length, those of one length at random if *shuffle*.

    *words* (one sequence of tokens for each row) is kept as ``src``, their lengths as ``src_sizes`` (``N``), both in
    the order of the ids. The order follows numpy's global seed, which fairseq sets from (seed, epoch) where batches are
    rebuilt; without *shuffle* it is that of the data.
    """

    def __init__(self, rows: Any, words: Any, shuffle: bool) -> None:
        super().__init__(rows)
        self.src = words
        self.src_sizes = np.asarray(words.sizes)
        self.shuffle = shuffle

    def ordered_indices(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self))
        order = np.random.permutation(len(self))
        return order[np.argsort(self.src_sizes[order], kind="mergesort")]

    def labels(self) -> List[List[float]]:
        """Each row's class (from 0) or numbers, in the order of the ids."""
        targets = self.dataset.defn["target"]
        return [np.asarray(targets[i]).reshape(-1).tolist() for i in range(len(self))]
