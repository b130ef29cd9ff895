"""Find the neighbours of a million generated sentences: throughput, exactness and memory of the search.

    python benchmarks/neighbors_scale.py --queries 1000000 --proportion 0.1 --threads 2
    python benchmarks/neighbors_scale.py --queries 100000 --search torch --json > neighbors.json

One side is searched and written to a neighbour file, as ``fairseq-adv neighbors`` does it (the other side is
random). Sentences are drawn when they are asked for, 3 to 30 words by a skewed distribution, one in 64 a
repetition; so memory is that of the search alone. Recall is the share of the neighbours found whose cosine
reaches that of the true K-th neighbour, found for ``--checked`` queries by an exhaustive product in fp64.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List

import numpy as np
import torch
from machine import describe_machine
from safetensors import safe_open
from tqdm import tqdm

from fairseq_adv.neighbors import NearestNeighbors, NeighborFileWriter, RandomNeighbors, choose_cache_set
from fairseq_adv.neighbors.counter_hash import hash_counters
from fairseq_adv.neighbors.search import SEARCHES
from fairseq_adv.neighbors.sentence_vectors import in_batches, sentence_vectors

MIB = 1 << 20


class GeneratedSentences:
    """Sample ids -> sentences of words 0 to *vocabulary* − 1, the same for the same id, none of them held."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        self.vocabulary, self.seed = vocabulary, seed

    def __call__(self, ids: np.ndarray) -> List[np.ndarray]:
        ids = np.where(hash_counters(ids, self.seed, 0) % np.uint64(64) == 0, ids % 1000, ids)
        lengths = (3 + hash_counters(ids, self.seed, 1) % np.uint64(28)).astype(np.int64)
        places = np.concatenate([np.arange(length) for length in lengths])
        uniform = hash_counters(np.repeat(ids, lengths) * 64 + places, self.seed, 2) * 2.0**-64
        words = np.minimum(self.vocabulary * uniform**3, self.vocabulary - 1).astype(np.int64)
        return np.split(words, np.cumsum(lengths)[:-1])


def resident_mib() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def search_and_write(args: argparse.Namespace, words: GeneratedSentences, weight: torch.Tensor, path: Path) -> Dict:
    """Time the base and the queries; resident memory before, and the most in the first tenth and after it."""
    cache_ids = choose_cache_set(args.queries, args.proportion, args.seed)
    before = resident_mib()
    start = time.perf_counter()
    nearest = NearestNeighbors(
        words, weight, cache_ids, args.num_neighbors, args.search, args.batch_size, device=args.device
    )
    base_seconds = time.perf_counter() - start
    peaks = [0.0, 0.0]
    start, done = time.perf_counter(), 0
    with NeighborFileWriter(path, args.queries, cache_ids, args.num_neighbors, fingerprint={}, sources={}) as writer:
        with tqdm(total=args.queries, unit=" queries", file=sys.stderr) as progress:
            for rows in nearest.lists(args.queries):
                writer.write("src", rows.neighbor_ids, rows.cosine)
                late = done > args.queries // 10
                peaks[late] = max(peaks[late], resident_mib())
                done += len(rows.cosine)
                progress.update(len(rows.cosine))
        seconds = time.perf_counter() - start
        lists = RandomNeighbors(args.queries, cache_ids, args.num_neighbors, args.seed)
        for ids in in_batches(np.arange(args.queries), 1 << 16):
            ids_of_random = lists.lookup(ids, "tgt")
            writer.write("tgt", ids_of_random, np.full(ids_of_random.shape, np.nan))
    return {
        "search": nearest.search_name,
        "cached": len(cache_ids),
        "distinct_cached": len(nearest.base.vectors),
        "base_seconds": round(base_seconds, 1),
        "search_seconds": round(seconds, 1),
        "queries_per_second": round(args.queries / seconds),
        "gflops": round(2e-9 * args.queries * len(nearest.base.vectors) * args.dim / seconds, 1),
        "base_mib": round(nearest.base.vectors.numel() * 4 / MIB, 1),
        "rss_before_mib": round(before, 1),
        "rss_first_tenth_mib": round(peaks[0], 1),
        "rss_rest_mib": round(peaks[1], 1),
    }


def measure_recall(args: argparse.Namespace, words: GeneratedSentences, weight: torch.Tensor, path: Path) -> Dict:
    """Recall by cosine, and the largest error of a stored one, against an exhaustive search in fp64."""
    with safe_open(str(path), framework="numpy") as file:
        cache_ids = file.get_tensor("cache_ids")
        queries = np.random.default_rng(args.seed).choice(args.queries, min(args.checked, args.queries), replace=False)
        rows = [(file.get_slice(f"src.{name}")[q : q + 1]) for q in queries for name in ("neighbor_ids", "cosine")]
    found, stored = np.concatenate(rows[0::2]), np.concatenate(rows[1::2])
    base = torch.cat([sentence_vectors(words(ids), weight) for ids in in_batches(cache_ids, 4096)])
    good, error = 0, 0.0
    for query, ids, cosines in zip(queries, found, stored):
        scores = (base.double() @ sentence_vectors(words(np.array([query])), weight)[0].double()).numpy()
        true = scores[np.searchsorted(cache_ids, ids)]
        error = max(error, float(np.abs(true - cosines).max()))
        kth = np.sort(scores[cache_ids != query])[-args.num_neighbors]
        good += int(((true >= kth - 2e-6) & (ids != query)).sum())
    return {"checked_queries": len(queries), "recall": good / found.size, "largest_cosine_error": error}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1_000_000, help="sentences, default 1000000")
    parser.add_argument("--proportion", type=float, default=0.1, help="share of them that is cached, default 0.1")
    parser.add_argument("--num-neighbors", type=int, default=5, help="K, default 5")
    parser.add_argument("--dim", type=int, default=384, help="of the word embeddings, default 384")
    parser.add_argument("--vocabulary", type=int, default=30_000, help="words, default 30000")
    parser.add_argument("--search", choices=SEARCHES, default="auto", help="default auto")
    parser.add_argument("--batch-size", type=int, default=2048, help="queries at a time, default 2048")
    parser.add_argument("--checked", type=int, default=200, help="queries whose recall is measured, default 200")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, default 0 = torch's choice")
    parser.add_argument("--seed", type=int, default=1, help="of sentences, embeddings and cached set, default 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    args = parser.parse_args()
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    words = GeneratedSentences(args.vocabulary, args.seed)
    weight = torch.randn(args.vocabulary, args.dim, generator=torch.Generator().manual_seed(args.seed))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "neighbors.safetensors"
        facts = {
            **describe_machine(args.device, "numpy", "faiss-cpu"),
            **{k: v for k, v in vars(args).items() if k not in ("json", "device")},
        }
        facts.update(search_and_write(args, words, weight, path), file_mib=round(path.stat().st_size / MIB, 1))
        facts["peak_rss_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        facts.update(measure_recall(args, words, weight, path))
    print(json.dumps(facts, indent=2) if args.json else "\n".join(f"{key:<22}{value}" for key, value in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
