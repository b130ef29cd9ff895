"""Exact search for the largest inner products, by faiss or by torch: both return candidates for the same ranking."""

from __future__ import annotations

import importlib.util
import logging
from typing import Protocol

import torch
from torch import Tensor

SEARCHES = ("auto", "faiss", "torch")
_SCORES_AT_A_TIME = {"cpu": 1 << 24, "cuda": 1 << 28}  # bounds the memory of one product of queries and base


class Search(Protocol):
    """Finds for each query the rows of a fixed base with the largest inner product."""

    name: str

    def candidates(self, queries: Tensor, count: int) -> Tensor:
        """Rows of the base (``n x count``, int64), in no particular order, for *queries* (``n x D``)."""


class TorchSearch:
    """Matrix products with parts of the base, each followed by a top-k merge; runs wherever the base lies."""

    name = "torch"

    def __init__(self, base: Tensor) -> None:
        self.base = base

    def candidates(self, queries: Tensor, count: int) -> Tensor:
        rows = max(count, _SCORES_AT_A_TIME.get(self.base.device.type, 1 << 24) // len(queries))
        best = queries.new_empty(len(queries), 0)
        places = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
        for first in range(0, len(self.base), rows):
            scores = queries @ self.base[first : first + rows].T  # n x rows
            top = scores.topk(min(count, scores.size(1)), dim=1)
            best = torch.cat([best, top.values], dim=1)
            places = torch.cat([places, top.indices + first], dim=1)
            if best.size(1) > count:
                best, kept = best.topk(count, dim=1)
                places = places.gather(1, kept)
        return places


class FaissSearch:
    """``faiss.knn``, the kernel of ``IndexFlatIP`` without its copy of the base, on the CPU."""

    name = "faiss"

    def __init__(self, base: Tensor) -> None:
        logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it logs each instruction set that it tries
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self.faiss, self.base = faiss, base.cpu().numpy()

    def candidates(self, queries: Tensor, count: int) -> Tensor:
        _, places = self.faiss.knn(queries.cpu().numpy(), self.base, count, metric=self.faiss.METRIC_INNER_PRODUCT)
        return torch.from_numpy(places).to(queries.device)


def make_search(kind: str, base: Tensor) -> Search:
    """The search named *kind* over *base* (``G x D``): ``auto`` is faiss if it is installed and the base is on a CPU.

    On a GPU torch is used: the product is what takes the time, and the base is there already.
    """
    if kind not in SEARCHES:
        raise ValueError(f"unknown search {kind!r}: choose one of {', '.join(SEARCHES)}")
    installed = importlib.util.find_spec("faiss") is not None
    if kind == "faiss" and not installed:
        raise ImportError("--search faiss needs faiss: pip install 'fairseq-adv[knn]', or use --search torch")
    if kind == "faiss" or (kind == "auto" and installed and base.device.type == "cpu"):
        return FaissSearch(base)
    return TorchSearch(base)
