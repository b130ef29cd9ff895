#!/usr/bin/env python3
"""Throughput of ConAdv with spare ranks against DisAdv, measured here and modelled for other numbers of ranks.

    python benchmarks/conadv_placement.py --ranks 1 2 --rounds 5

ConAdv's Figure 4 asks whether spare processors win: half of 2n ranks perturb the coming batches of the other half,
so that an update is one sequential pass long, on half as many trainers. Every way of training gets the same global
batch in target tokens. One job of R ranks trains each way in turn, round after round, so that a machine that changes
its speed changes it for all; the figures are medians over rounds.

The model: a forward and backward pass over b tokens takes a + c·b seconds (least squares over measured passes). With a
batch of B tokens on R ranks DisAdv needs 2(a + c·B/R); ConAdv on R/2 trainers, its two halves in one pass
(--adv-passes concat), a + 4c·B/R. So ConAdv wins from R > 2c·B/a ranks on, where a rank's share costs less than the
fixed part of a pass. Communication is left out of both.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

CONADV = ["--criterion", "conadv_label_smoothed"]
WAYS: Dict[str, List[str]] = {
    "plain": ["--criterion", "label_smoothed_cross_entropy"],
    "disadv": ["--criterion", "disadv_label_smoothed"],
    "conadv same": [*CONADV, "--conadv-placement", "same"],
    "conadv spare": [*CONADV, "--conadv-placement", "spare"],
    "conadv spare, concat": [*CONADV, "--conadv-placement", "spare", "--adv-passes", "concat"],
}


def train_words(data: Path, folder: Path, way: str, args: argparse.Namespace) -> List[str]:
    """Options of fairseq-train for one way; the micro-batch is as large as a rank's share of the batch."""
    model = f"""--arch transformer --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim {args.dim}
        --decoder-embed-dim {args.dim} --encoder-ffn-embed-dim {2 * args.dim} --decoder-ffn-embed-dim {2 * args.dim}
        --encoder-attention-heads 4 --decoder-attention-heads 4 --share-all-embeddings --dropout 0.1"""
    regime = f"""--source-lang en --target-lang de --task adversarial_translation --label-smoothing 0.1 --optimizer adam
        --lr 0.0001 --lr-scheduler fixed --required-batch-size-multiple 1 --num-workers 0 --seed 1 --no-save --cpu
        --max-tokens {args.micro_batch} --target-batch-tokens {args.batch_tokens}"""
    return [str(data), *model.split(), *regime.split(), "--save-dir", str(folder), *WAYS[way]]


def rank_main(plan: Path) -> None:
    """One rank: every way in turn, *rounds* times *updates* updates; rank 0 writes seconds for each."""
    import torch

    from fairseq_adv.in_process import build_trainer, epoch_batches

    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    told = json.loads(plan.read_text())
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        torch.distributed.init_process_group("gloo")
    seconds: Dict[str, List[float]] = {way: [] for way in told["ways"]}
    jobs = {}
    for way in told["ways"]:
        if "spare" in way and world == 1:
            continue
        words = told["words"][way]
        if world > 1:
            words = [*words, "--distributed-world-size", str(world), "--distributed-rank", str(rank)]
            words += ["--distributed-backend", "gloo", "--distributed-no-spawn", "--ddp-backend", "legacy_ddp"]
        training = build_trainer(words)
        jobs[way] = (training.trainer, epoch_batches(training.trainer, 1))
    for _ in range(told["rounds"] + 1):  # the first round warms up
        for way, (trainer, batches) in jobs.items():
            start = time.perf_counter()
            for _ in range(told["updates"]):
                trainer.train_step(next(batches))
            seconds[way].append((time.perf_counter() - start) / told["updates"])
    if rank == 0:
        Path(told["output"]).write_text(json.dumps({way: times[1:] for way, times in seconds.items() if times}))


def measure(ranks: int, data: Path, folder: Path, args: argparse.Namespace) -> Dict[str, List[float]]:
    """Seconds of an update, a list over rounds for each way, with that many ranks."""
    words = {way: train_words(data, folder / way.replace(" ", "-").replace(",", ""), way, args) for way in WAYS}
    plan, output = folder / f"plan{ranks}.json", folder / f"seconds{ranks}.json"
    told = {"ways": list(WAYS), "words": words, "rounds": args.rounds, "updates": args.updates, "output": str(output)}
    plan.write_text(json.dumps(told))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command: List[Any] = [sys.executable, __file__, "--as-rank", plan]
    if ranks > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", ranks, "--standalone"]
        command = [*launcher, *command[1:]]
    subprocess.run([str(word) for word in command], env=environment, check=True, stdout=subprocess.DEVNULL)
    return json.loads(output.read_text())


def pass_times(data: Path, folder: Path, args: argparse.Namespace) -> List[Tuple[int, float]]:
    """(tokens, seconds of a forward and backward pass) for micro-batches from small to large, medians."""
    import torch

    from fairseq_adv.in_process import build_trainer, epoch_batches

    torch.set_num_threads(1)
    sizes = sorted({64, 128, 256, 512, 1024, 2048})
    found = []
    for size in sizes:
        words = train_words(data, folder / f"pass{size}", "plain", args)
        words[words.index("--max-tokens") + 1] = str(size)
        words[words.index("--target-batch-tokens") + 1] = "0"
        training = build_trainer(words)
        batches = [b[0] for b in epoch_batches(training.trainer, 1)]
        full = [b for b in batches if b["ntokens"] > 0.7 * max(x["ntokens"] for x in batches)][: args.rounds + 1]
        times = []
        for sample in full:
            start = time.perf_counter()
            loss, _, _ = training.criterion(training.model, sample)
            loss.backward()
            times.append((time.perf_counter() - start, sample["ntokens"]))
        found.append((round(statistics.median(n for _, n in times[1:])), statistics.median(t for t, _ in times[1:])))
    return found


def fit(points: Sequence[Tuple[int, float]]) -> Tuple[float, float]:
    """a and c of a + c·b by least squares on relative errors, so that small passes count too."""
    import numpy as np

    tokens, seconds = (np.array(column, dtype=float) for column in zip(*points))
    design = np.stack([1 / seconds, tokens / seconds], axis=1)
    (a, c), *_ = np.linalg.lstsq(design, np.ones(len(points)), rcond=None)
    return float(a), float(c)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of ranks, one core each (default: 1 2)")
    add("--batch-tokens", type=int, default=1024, help="target tokens of an update over all ranks (default: 1024)")
    add("--micro-batch", type=int, default=512, help="--max-tokens (default: 512)")
    add("--dim", type=int, default=128, help="size of the embeddings (default: 128)")
    add("--rounds", type=int, default=5, help="rounds of all ways (default: 5)")
    add("--updates", type=int, default=4, help="updates of a way in a round (default: 4)")
    add("--as-rank", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    if args.as_rank:
        rank_main(args.as_rank)
        return
    from machine import commit
    from step_subject import write_corpus

    print(f"{platform.machine()}, {os.cpu_count()} cores, commit {commit()}, batch {args.batch_tokens}")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        needed = (args.rounds + 2) * args.updates * args.batch_tokens // 20
        data = write_corpus(folder, 2000, max(400, needed))
        print("\n| ranks | way | ms / update | updates / s, relative to disadv on 1 rank |\n|---:|---|---:|---:|")
        base = 0.0
        for ranks in args.ranks:
            for way, times in measure(ranks, data, folder, args).items():
                median = statistics.median(times)
                base = median if (way, ranks) == ("disadv", args.ranks[0]) else base
                relative = f"{base / median:.2f}" if base else "–"
                print(f"| {ranks} | {way} | {1000 * median:.0f} | {relative} |")
        points = pass_times(data, folder, args)
    a, c = fit(points)
    print("\npass over b tokens: " + ", ".join(f"{b}: {1000 * t:.0f} ms" for b, t in points))
    print(f"fit: a = {1000 * a:.1f} ms, c = {1e6 * c:.0f} us per token")
    for batch in (1_000, 32_000, 450_000):
        print(f"batch of {batch:,} tokens: ConAdv on spare ranks (concat) wins from {2 * c * batch / a:,.0f} ranks on")


if __name__ == "__main__":
    main()
