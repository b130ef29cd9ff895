"""The loop that ``cache_scale.py`` times: each batch's perturbations from the cache, or from dictionaries in memory."""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.cache import PerturbationCache
from fairseq_adv.compat.ahead import AHEAD
from fairseq_adv.data.cached_perturbations import CachedPerturbations
from fairseq_adv.data.known_batch import KnownBatch
from fairseq_adv.data.served_batch import ServedSide
from fairseq_adv.methods.arch import perturbation_from_neighbors
from fairseq_adv.neighbors import Neighbors
from fairseq_adv.perturb import Ball

SIDES, CPU = ("src", "tgt"), torch.device("cpu")
Serve = Callable[[KnownBatch], Dict[str, ServedSide]]


def draw_batches(args: argparse.Namespace, ids: np.ndarray, lengths: np.ndarray, seed: int) -> List[KnownBatch]:
    """``--batches`` batches of at most ``--tokens`` tokens: sentences of like length, as a training has them."""
    order = ids[np.argsort(lengths[ids], kind="stable")]
    rng, found = np.random.default_rng(seed), []
    for _ in range(args.batches):
        start = int(rng.integers(len(order)))
        longest = np.maximum.accumulate(lengths[order[start:]])
        count = max(1, int((longest * np.arange(1, len(longest) + 1) <= args.tokens).sum()))
        some = rng.permutation(order[start : start + count])
        columns = int(lengths[some].max())
        found.append(KnownBatch(some, dict.fromkeys(SIDES, lengths[some]), dict.fromkeys(SIDES, columns)))
    return found


def from_memory(args: argparse.Namespace, cache: PerturbationCache, neighbors: Neighbors, ids: np.ndarray) -> Serve:
    """Serve from dictionaries of fp16 rows and fp32 means of *ids*, made of what the cache holds."""
    reader = cache.reader
    assert reader is not None
    rows = {(i, side): x.half() for side in SIDES for i, x in zip(ids.tolist(), reader.read(ids, side))}
    means = {(i, side): x for side in SIDES for i, x in zip(ids.tolist(), reader.read_means(ids, side)[0])}
    zero, norm = torch.zeros(args.dim), torch.ones(1)

    def serve(batch: KnownBatch) -> Dict[str, ServedSide]:
        served = {}
        for side in SIDES:
            exact = torch.tensor([(i, side) in rows for i in batch.ids.tolist()])
            values = torch.zeros(len(batch.ids), batch.columns[side], args.dim)
            for row, i in enumerate(batch.ids.tolist()):
                if exact[row]:
                    values[row, : len(rows[i, side])] = rows[i, side].float()
            nearest = neighbors.lookup(batch.ids, side)[:, 0].tolist()
            mean = torch.stack([means.get((j, side), zero) for j in nearest]).unsqueeze(1)
            found = torch.tensor([(j, side) in means for j in nearest]).unsqueeze(1)
            served[side] = ServedSide(exact, values, mean, norm.expand(len(nearest), 1), found)
        return served

    return serve


def in_place(served: Dict[str, ServedSide], batch: KnownBatch) -> Dict[str, Tensor]:
    """δ of the batch, as ARCH's criterion makes it of what is served."""
    ball, deltas = Ball(1.0), {}
    for side, part in served.items():
        mask = torch.arange(batch.columns[side]) < torch.from_numpy(batch.lengths[side]).unsqueeze(1)
        rebuilt = perturbation_from_neighbors(part.means, part.norms, part.found, mask)
        deltas[side] = torch.where(part.exact.view(-1, 1, 1), ball.project(part.values, mask), rebuilt)
    return deltas


class Work:
    """A stand-in for an update: matrix products of about *milliseconds* on the training thread."""

    def __init__(self, milliseconds: float) -> None:
        self.matrix, self.times = torch.randn(384, 384) / 20, 1
        start = time.perf_counter()
        for _ in range(50):
            self.matrix @ self.matrix
        self.times = max(1, round(milliseconds / 1e3 / ((time.perf_counter() - start) / 50)))

    def __call__(self) -> None:
        for _ in range(self.times):
            self.matrix @ self.matrix


class Loop(NamedTuple):
    """Seconds of a whole loop, of each wait for what is served, and of each wait until δ is in place."""

    whole: float
    read: List[float]
    serve: List[float]


def train_loop(
    batches: List[KnownBatch], serve: Serve, foresee: Callable[[KnownBatch], None], work: Callable[[], None]
) -> Loop:
    told: Deque[KnownBatch] = deque()
    coming = iter(batches)
    waits: List[float] = []
    places: List[float] = []
    start = time.perf_counter()
    while True:
        while len(told) <= AHEAD and (batch := next(coming, None)) is not None:
            foresee(batch)
            told.append(batch)
        if not told:
            return Loop(time.perf_counter() - start, waits, places)
        batch = told.popleft()
        asked = time.perf_counter()
        served = serve(batch)
        got = time.perf_counter()
        in_place(served, batch)
        waits.append(got - asked)
        places.append(time.perf_counter() - asked)
        work()


def compare(
    args: argparse.Namespace, cache: PerturbationCache, neighbors: Neighbors, lengths: np.ndarray
) -> Dict[str, Any]:
    """Waiting and batches/s of training for both kinds of batches, from the cache and from dictionaries, in turn."""
    everything = np.arange(len(lengths))
    perturbations = CachedPerturbations(cache, neighbors, np.ones(len(lengths), dtype=bool), CPU)
    in_memory = from_memory(args, cache, neighbors, neighbors.cache_ids[: args.in_ram])
    work, facts = Work(args.update_ms), {}
    for kind, ids in (("mixed", everything), ("whole", neighbors.cache_ids[: args.in_ram])):
        batches = draw_batches(args, ids, lengths, args.seed)
        rounds: List[Tuple[Loop, Loop]] = []
        for _ in range(args.rounds + 1):  # the first one warms up
            disk = train_loop(batches, lambda batch: perturbations.serve(batch).sides, perturbations.foresee, work)
            ram = train_loop(batches, in_memory, lambda batch: None, work)
            rounds.append((disk, ram))
        for name, place in (("", 0), ("_in_ram", 1)):
            facts[f"{kind}{name}_batches_per_s"] = statistics.median(len(batches) / r[place].whole for r in rounds[1:])
            for what in ("read", "serve"):
                waits = [seconds for r in rounds[1:] for seconds in getattr(r[place], what)]
                facts[f"{kind}{name}_{what}_wait_ms"] = 1e3 * statistics.median(waits)
        facts[f"{kind}_of_in_ram"] = statistics.median(r[1].whole / r[0].whole for r in rounds[1:])
    return facts
