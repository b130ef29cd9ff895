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
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
import torch
from cache_loop import SIDES, compare
from machine import describe_machine
from torch import nn
from tqdm import tqdm

from fairseq_adv.cache import CacheSpec, PerturbationCache, estimate_bytes, open_cache
from fairseq_adv.neighbors import random_neighbors


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
    facts: Dict[str, Any] = {**describe_machine("cpu"), "seed": args.seed, "dim": args.dim, "dtype": args.dtype}
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
