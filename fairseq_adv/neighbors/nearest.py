"""The K nearest cached sentences of every sentence by cosine (ARCH, Eq. 4), in memory that queries do not fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, NamedTuple, Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.neighbors.lists import check_num_neighbors
from fairseq_adv.neighbors.search import make_search
from fairseq_adv.neighbors.sentence_vectors import (
    DistinctSentences,
    Words,
    distinct_sentences,
    in_batches,
    sentence_vectors,
    sorted_words,
)

TIE = 1e-6  # cosines that round to the same multiple of this are equal; the lower id comes first
_MARGIN = 16  # candidates beyond K: room for the errors of fp32 products and for near ties
_RANKED_AT_A_TIME = 256  # queries; bounds the memory of the exact ranking
_ID_BITS = 31
_LAST = 3_000_000  # rank of the query itself: after every cosine
_NEVER = torch.iinfo(torch.int64).max


class NeighborRows(NamedTuple):
    """Lists of consecutive sample ids, nearest first: ids (int64) and cosines (fp32), ``b x K`` each."""

    neighbor_ids: np.ndarray
    cosine: np.ndarray


@dataclass
class NearestNeighbors:
    """Exact search for the neighbours of one side.

    *words* gives rows of *weight* (``V x D``) for sample ids. *search* is ``auto``, ``faiss`` or ``torch``; the
    lists do not depend on it, nor on *batch_size*. The work is done where *device* says.
    """

    words: Words
    weight: Tensor
    cache_ids: np.ndarray
    num_neighbors: int
    search: str = "auto"
    batch_size: int = 2048
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_num_neighbors(self.num_neighbors, len(self.cache_ids))
        if self.batch_size < 1:
            raise ValueError(f"the batch size must be >= 1, got {self.batch_size}")
        if not torch.isfinite(self.weight).all():
            raise ValueError("the word embeddings hold values that are not finite")
        self.weight = self.weight.detach().float().to(self.device)
        self.base = distinct_sentences(self.words, self.cache_ids, self.weight, self.num_neighbors + 1, self.batch_size)
        self._search = make_search(self.search, self.base.vectors)

    @property
    def search_name(self) -> str:
        """The search in use, ``faiss`` or ``torch``."""
        return self._search.name

    def lists(self, num_samples: int) -> Iterator[NeighborRows]:
        """The lists of sample ids 0, 1, …, *num_samples* − 1, batch by batch.

        A cached sentence is not its own neighbour, unless the cache set has no K others: then it comes last. A
        sentence of no known word has cosine 0 with all, so the lowest ids.
        """
        count = min(self.num_neighbors + 1 + _MARGIN, len(self.base.vectors))
        for ids in in_batches(np.arange(num_samples), self.batch_size):
            queries = sentence_vectors(sorted_words(self.words(ids)), self.weight)
            groups = self._search.candidates(queries, count)
            # all cosines of an empty sentence are equal; groups are numbered by their lowest ids
            groups[~queries.any(dim=1)] = torch.arange(count, device=groups.device)
            own = torch.from_numpy(ids).to(self.device)
            ranked = [
                rank_candidates(part, part_groups, part_own, self.base, self.num_neighbors)
                for part, part_groups, part_own in zip(
                    queries.split(_RANKED_AT_A_TIME), groups.split(_RANKED_AT_A_TIME), own.split(_RANKED_AT_A_TIME)
                )
            ]
            neighbor_ids, cosine = (torch.cat(parts).cpu().numpy() for parts in zip(*ranked))
            yield NeighborRows(neighbor_ids, cosine)


def rank_candidates(
    queries: Tensor, groups: Tensor, own: Tensor, base: DistinctSentences, num_neighbors: int
) -> Tuple[Tensor, Tensor]:
    """Of the candidate *groups* (``n x C``) of *queries* (``n x D``) the *num_neighbors* best members, and cosines.

    Cosines are computed anew in fp64, so that the result does not depend on how a search ordered its products;
    *own* (``n``) are the queries' ids, which come last.
    """
    vectors = base.vectors[groups].double()  # n x C x D
    cosine = torch.einsum("ncd,nd->nc", vectors, queries.double())
    members = base.members[groups]  # n x C x J
    rank = ((1.0 - cosine) / TIE).round().long().unsqueeze(2).expand_as(members)
    rank = torch.where(members == own.view(-1, 1, 1), torch.full_like(rank, _LAST), rank)
    key = torch.where(members < 0, torch.full_like(rank, _NEVER), (rank << _ID_BITS) | members)
    best = key.flatten(1).topk(num_neighbors, dim=1, largest=False, sorted=True)
    place = best.indices // members.size(2)
    return best.values & ((1 << _ID_BITS) - 1), cosine.gather(1, place).float()
