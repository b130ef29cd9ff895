"""A sentence as the mean of its words' embeddings (Eq. 4), and the distinct sentences of a cache set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Words = Callable[[np.ndarray], Sequence[np.ndarray]]  # sample ids -> rows of the embedding matrix, for each sentence


def in_batches(ids: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive parts of *ids*, of *size* or, the last one, less."""
    for first in range(0, len(ids), size):
        yield ids[first : first + size]


def sorted_words(sentences: Sequence[np.ndarray]) -> List[np.ndarray]:
    """The words of each sentence in ascending order: sentences of the same words get the same vector, bit for bit."""
    return [np.sort(sentence) for sentence in sentences]


def sentence_vectors(sentences: Sequence[np.ndarray], weight: Tensor) -> Tensor:
    """Unit vectors ``n x D`` along the mean of each sentence's rows of *weight*; zero for a sentence of no words."""
    lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
    flat = np.concatenate([np.empty(0, dtype=np.int64), *sentences]).astype(np.int64)
    if len(flat) and not 0 <= flat.min() <= flat.max() < len(weight):
        raise ValueError(f"a word has index {flat.max()}, but there are embeddings for {len(weight)} words")
    offsets = torch.from_numpy(np.cumsum(lengths) - lengths)
    words = torch.from_numpy(flat).to(weight.device)
    means = F.embedding_bag(words, weight, offsets.to(weight.device), mode="mean")
    return F.normalize(means, dim=1)


@dataclass(frozen=True)
class DistinctSentences:
    """The cached sentences with those of the same words taken together, G of them.

    ``vectors``: unit vectors, ``G x D``; ``members`` (``G x J``, int64): the J lowest ids of each, −1 where there
    are fewer. Short sentences repeat often; without this a search that returns a fixed number of rows could
    return any of them instead of those with the lowest ids.
    """

    vectors: Tensor
    members: Tensor


def distinct_sentences(
    words: Words, ids: np.ndarray, weight: Tensor, max_members: int, batch_size: int
) -> DistinctSentences:
    """Group the sentences *ids* (ascending) by their words and embed each group once."""
    group_of: Dict[bytes, int] = {}
    counts: List[int] = []
    vectors = weight.new_empty(len(ids), weight.size(1))
    members = np.full((len(ids), max_members), -1, dtype=np.int64)
    for batch in in_batches(ids, batch_size):
        known = len(counts)
        fresh = []
        for sample_id, sentence in zip(batch, sorted_words(words(batch))):
            group = group_of.setdefault(sentence.tobytes(), len(counts))
            if group == len(counts):
                counts.append(0)
                fresh.append(sentence)
            if counts[group] < max_members:
                members[group, counts[group]] = sample_id
            counts[group] += 1
        vectors[known : len(counts)] = sentence_vectors(fresh, weight)
    device = weight.device
    return DistinctSentences(vectors[: len(counts)], torch.from_numpy(members[: len(counts)]).to(device))
