"""Write, commit, open and read a cache of generated perturbations with the record sizes of a large corpus.

    python benchmarks/cache_scale.py                                        # under a minute
    python benchmarks/cache_scale.py --pairs 4500000 --dim 1024 --directory /scratch --json > cache.json

The real writer and reader are driven; sentence lengths follow a log-normal distribution, values are random. Two kinds
of batches are compared with the same ones from an in-RAM dictionary: ``mixed`` reads whole records of its cached pairs
and the means of one neighbour of each other pair, both sides; ``whole`` reads whole records of all. Bytes read are
compared with the disk's own rate of reading the shards in order (from the page cache, if they fit there).
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
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import torch
from tqdm import tqdm

from fairseq_adv.cache import CacheReader, CacheSpec, PerturbationCache, estimate_bytes, open_cache

SIDES = ("src", "tgt")


def resident_mb() -> float:
    """Resident memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def draw_lengths(count: int, seed: int) -> np.ndarray:
    """Tokens of each sentence: log-normal, median 24, at most 250."""
    return np.clip(np.random.default_rng(seed).lognormal(3.2, 0.6, count), 1, 250).astype(np.int64)


def write(args: argparse.Namespace, directory: str, lengths: np.ndarray) -> Dict[str, Any]:
    """Fill and commit one generation."""
    spec = CacheSpec({f"dim.{side}": args.dim for side in SIDES}, epsilon=1.0, dtype=args.dtype)
    expected = 2 * estimate_bytes(int(lengths.sum()), int(lengths.sum()), len(lengths), args.dim, args.dim, args.dtype)
    options = dict(ema=0.01, run_id="benchmark", shard_bytes=args.shard_mb << 20, expected_bytes=expected)
    cache = PerturbationCache(directory, spec, **options)  # type: ignore[arg-type]
    cache.begin_refresh(1)
    generator = torch.Generator().manual_seed(args.seed)
    pool = torch.randn(2000, args.dim, generator=generator) * (0.5 / (250 * args.dim) ** 0.5)
    start = time.perf_counter()
    for first in tqdm(range(0, len(lengths), 64), desc="writing", unit="batch", disable=None):
        ids = range(first, min(first + 64, len(lengths)))
        rows = [pool[i % 1700 : i % 1700 + int(lengths[i])] for i in ids]
        cache.put(list(ids), 1, rows, rows)
    cache.prepare_checkpoint()
    written = time.perf_counter()
    cache.commit(expected_ids=range(len(lengths)))
    committed = time.perf_counter()
    cache.close()
    size = sum(path.stat().st_size for path in Path(directory).glob("gen-*/*"))
    return {
        "records": len(lengths),
        "bytes": size,
        "bytes_per_cached_token": size / (2 * int(lengths.sum())),
        "write_mb_per_s": size / 1e6 / (written - start),
        "commit_seconds": committed - written,
    }


def batch_rate(batches: List[np.ndarray], cached: int, read: Callable, read_means: Callable) -> float:
    """Batches in a second; the first *cached* ids of each are read whole, of the others the means."""
    start = time.perf_counter()
    for ids in batches:
        for side in SIDES:
            read(ids[:cached], side)
            if cached < len(ids):
                read_means(ids[cached:], side)
    return len(batches) / (time.perf_counter() - start)


def compare(args: argparse.Namespace, reader: CacheReader) -> Dict[str, Any]:
    """Batches/s of *reader* and of dictionaries of fp16 rows and fp32 means, by kind of batch; median of rounds in
    turn, all warm."""
    rng = np.random.default_rng(args.seed)
    some = reader.ids[: min(len(reader.ids), args.in_ram)]
    batches = [rng.choice(some, args.batch) for _ in range(args.batches)]
    rows = {(i, side): x.half() for side in SIDES for i, x in zip(some.tolist(), reader.read(some, side))}
    means = {(i, side): x for side in SIDES for i, x in zip(some.tolist(), reader.read_means(some, side)[0])}

    def read(ids: np.ndarray, side: str) -> List[torch.Tensor]:
        return [rows[i, side].float() for i in ids.tolist()]

    def read_means(ids: np.ndarray, side: str) -> torch.Tensor:
        return torch.stack([means[i, side] for i in ids.tolist()])

    facts: Dict[str, Any] = {}
    for kind, cached in (("mixed", max(1, round(args.proportion * args.batch))), ("whole", args.batch)):
        disk, ram = [], []
        for _ in range(args.rounds + 1):
            disk.append(batch_rate(batches, cached, reader.read, reader.read_means))
            ram.append(batch_rate(batches, cached, read, read_means))
        facts[f"{kind}_batches_per_s"] = statistics.median(disk[1:])
        facts[f"{kind}_in_ram_batches_per_s"] = statistics.median(ram[1:])
        facts[f"{kind}_of_in_ram"] = statistics.median(a / b for a, b in zip(disk[1:], ram[1:]))
    return facts


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40_000, help="sentence pairs of the corpus, default 40000")
    parser.add_argument("--proportion", type=float, default=0.1, help="share that is cached, default 0.1")
    parser.add_argument("--dim", type=int, default=512, help="of embeddings, default 512")
    parser.add_argument("--dtype", choices=["fp16", "int8", "fp32"], default="fp16", help="default fp16")
    parser.add_argument("--batch", type=int, default=128, help="pairs of a batch, default 128")
    parser.add_argument("--batches", type=int, default=200, help="batches that are timed, default 200")
    parser.add_argument("--rounds", type=int, default=5, help="times that they are timed, default 5")
    parser.add_argument("--in-ram", type=int, default=20_000, help="records that the dictionary holds at most")
    parser.add_argument("--shard-mb", type=int, default=256, help="size of a shard in MiB, default 256")
    parser.add_argument("--directory", help="where to put the cache, deleted afterwards (a temporary folder)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads, default 1")
    parser.add_argument("--seed", type=int, default=1, help="of lengths, values and batches, default 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lengths = draw_lengths(max(1, round(args.pairs * args.proportion)), args.seed)
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False, cwd=Path(__file__).parent).stdout.strip()
    facts: Dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
    facts.update(torch=torch.__version__, commit=commit or "unknown", seed=args.seed, dim=args.dim, dtype=args.dtype)
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        facts.update(write(args, directory, lengths))
        with multiprocessing.get_context("spawn").Pool(1) as process:
            facts.update(process.apply(reader_memory, (directory, args.batch)))
        reader = open_cache(directory)
        facts.update(compare(args, reader), sequential_mb_per_s=disk_rate(directory))
        reader.close()
    facts = {key: round(value, 3) if isinstance(value, float) else value for key, value in facts.items()}
    print(json.dumps(facts, indent=1) if args.json else "\n".join(f"{key:<24}{value}" for key, value in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
