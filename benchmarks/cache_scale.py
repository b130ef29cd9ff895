"""Write, commit, open and serve a cache of generated perturbations with the record sizes of a large corpus.

    python benchmarks/cache_scale.py                                        # about two minutes
    python benchmarks/cache_scale.py --pairs 4500000 --dim 1024 --directory /scratch --json > cache.json

The real writer, reader and server are driven; sentence lengths follow a log-normal distribution, values are random, and
batches hold ``--tokens`` target tokens of sentences of like length, both sides. What is timed is what training waits
for: from asking for a batch's perturbations to having δ in place (``B x L x D``), while a stand-in for an update keeps
the training thread busy between two batches, and the records of coming batches are read beside it. The same batches
come from dictionaries in memory, read when they are asked for, as a program without a cache on disk would do.
``mixed`` batches have the proportion of cached pairs that the corpus has, ``whole`` ones are all cached.
``*_of_in_ram`` compares batches/s of training, update and waiting together. ``mixed_wait_share`` is what waiting until
δ is in place adds to an update of a real model of ``--layers`` + ``--layers`` layers on this machine (clean and
perturbed pass, one backward pass).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fairseq_adv.cache import CacheSpec, PerturbationCache, estimate_bytes, open_cache
from fairseq_adv.compat.ahead import AHEAD
from fairseq_adv.data.cached_perturbations import CachedPerturbations
from fairseq_adv.data.known_batch import KnownBatch
from fairseq_adv.data.served_batch import ServedSide
from fairseq_adv.methods.arch import perturbation_from_neighbors
from fairseq_adv.neighbors import Neighbors, random_neighbors
from fairseq_adv.perturb import Ball

SIDES, CPU = ("src", "tgt"), torch.device("cpu")
Serve = Callable[[KnownBatch], Dict[str, ServedSide]]


def resident_mb() -> float:
    """Resident memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def draw_lengths(count: int, seed: int) -> np.ndarray:
    """Tokens of each sentence: log-normal, median 24, at most 250."""
    return np.clip(np.random.default_rng(seed).lognormal(3.2, 0.6, count), 1, 250).astype(np.int64)


# ---- writing ----------------------------------------------------------------------------------------------


def open_for_writing(args: argparse.Namespace, directory: str, tokens: int, records: int) -> PerturbationCache:
    spec = CacheSpec({f"dim.{side}": args.dim for side in SIDES}, epsilon=1.0, dtype=args.dtype)
    expected = 2 * estimate_bytes(tokens, tokens, records, args.dim, args.dim, args.dtype)
    options: Dict[str, Any] = dict(
        ema=0.01, run_id="benchmark", shard_bytes=args.shard_mb << 20, expected_bytes=expected
    )
    return PerturbationCache(directory, spec, **options)


def write(args: argparse.Namespace, cache: PerturbationCache, ids: np.ndarray, lengths: np.ndarray) -> Dict[str, Any]:
    """Fill and commit one generation with the samples *ids*."""
    cache.begin_refresh(1)
    generator = torch.Generator().manual_seed(args.seed)
    pool = torch.randn(2000, args.dim, generator=generator) * (0.5 / (250 * args.dim) ** 0.5)
    start = time.perf_counter()
    for first in tqdm(range(0, len(ids), 64), desc="writing", unit="batch", disable=None):
        some = ids[first : first + 64].tolist()
        rows = [pool[i % 1700 : i % 1700 + int(lengths[i])] for i in some]
        cache.put(some, 1, rows, rows)
    cache.prepare_checkpoint()
    written = time.perf_counter()
    cache.commit(expected_ids=ids)
    committed = time.perf_counter()
    size = sum(path.stat().st_size for path in Path(cache.directory).glob("gen-*/*"))
    return {
        "records": len(ids),
        "bytes": size,
        "bytes_per_cached_token": size / (2 * int(lengths[ids].sum())),
        "write_mb_per_s": size / 1e6 / (written - start),
        "commit_seconds": committed - written,
    }


# ---- serving ----------------------------------------------------------------------------------------------


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


def update_seconds(args: argparse.Namespace) -> float:
    """One update of a transformer over ``--tokens`` tokens: a clean and a perturbed pass, one backward pass."""
    torch.manual_seed(args.seed)
    heads = max(1, args.dim // 64)
    model = nn.Transformer(args.dim, heads, args.layers, args.layers, 4 * args.dim, batch_first=True)
    output = nn.Linear(args.dim, args.vocabulary)
    length = 32
    x = torch.randn(args.tokens // length, length, args.dim)
    target = torch.randint(args.vocabulary, (x.size(0) * length,))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        losses = [nn.functional.cross_entropy(output(model(y, y)).flatten(0, 1), target) for y in (x, x + 1e-3)]
        (losses[0] + losses[1]).backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


# ---- memory and disk --------------------------------------------------------------------------------------


def reader_memory(directory: str, batch: int) -> Dict[str, float]:
    """In a process of its own: what opening takes, and what reading every record once adds to resident memory."""
    before, start = resident_mb(), time.perf_counter()
    reader = open_cache(directory)
    seconds, opened = time.perf_counter() - start, resident_mb()
    for first in range(0, len(reader.ids), batch):
        for side in SIDES:
            reader.read(reader.ids[first : first + batch], side)
    return {"open_seconds": seconds, "index_mb": opened - before, "reader_growth_mb": resident_mb() - before}


def disk_rate(directory: str) -> float:
    """MB/s of reading all shards from front to back."""
    start, size = time.perf_counter(), 0
    for path in Path(directory).glob("gen-*/*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while data := file.read(16 << 20):
                size += len(data)
    return size / 1e6 / (time.perf_counter() - start)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40_000, help="sentence pairs of the corpus, default 40000")
    parser.add_argument("--proportion", type=float, default=0.1, help="share that is cached, default 0.1")
    parser.add_argument("--dim", type=int, default=512, help="of embeddings, default 512")
    parser.add_argument("--dtype", choices=["fp16", "int8", "fp32"], default="fp16", help="default fp16")
    parser.add_argument("--tokens", type=int, default=4096, help="of a batch, padding included, default 4096")
    parser.add_argument("--batches", type=int, default=40, help="batches that are timed, default 40")
    parser.add_argument("--rounds", type=int, default=3, help="times that they are timed, default 3")
    parser.add_argument("--update-ms", type=float, default=50, help="length of the stand-in for an update, default 50")
    parser.add_argument("--layers", type=int, default=1, help="of the model whose update is compared with, default 1")
    parser.add_argument("--vocabulary", type=int, default=4000, help="of that model, default 4000")
    parser.add_argument("--in-ram", type=int, default=20_000, help="records that the dictionary holds at most")
    parser.add_argument("--shard-mb", type=int, default=256, help="size of a shard in MiB, default 256")
    parser.add_argument("--directory", help="where to put the cache, deleted afterwards (a temporary folder)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads, default 1")
    parser.add_argument("--seed", type=int, default=1, help="of lengths, values and batches, default 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    torch.set_num_threads(args.threads)
    lengths = draw_lengths(args.pairs, args.seed)
    neighbors = random_neighbors(args.pairs, args.proportion, 1, args.seed)
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False, cwd=Path(__file__).parent).stdout.strip()
    facts: Dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
    facts.update(torch=torch.__version__, commit=commit or "unknown", seed=args.seed, dim=args.dim, dtype=args.dtype)
    ids = neighbors.cache_ids
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        cache = open_for_writing(args, directory, int(lengths[ids].sum()), len(ids))
        facts.update(write(args, cache, ids, lengths))
        with multiprocessing.get_context("spawn").Pool(1) as process:
            facts.update(process.apply(reader_memory, (directory, 128)))
        facts.update(compare(args, cache, neighbors, lengths), sequential_mb_per_s=disk_rate(directory))
        cache.close()
    facts["update_seconds"] = update_seconds(args)
    facts["mixed_wait_share"] = facts["mixed_serve_wait_ms"] / 1e3 / facts["update_seconds"]
    facts = {key: round(value, 4) if isinstance(value, float) else value for key, value in facts.items()}
    print(json.dumps(facts, indent=1) if args.json else "\n".join(f"{key:<28}{value}" for key, value in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
