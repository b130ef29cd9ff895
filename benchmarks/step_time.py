#!/usr/bin/env python3
"""What an update costs: time, passes and memory of each method relative to plain training, in one interleaved run.

    python benchmarks/step_time.py                          # 3+3 layers, d=256, 2 threads, fp32 on the CPU
    python benchmarks/step_time.py --fused --words 4000 32000 --methods "arch cached" "arch refresh S=3"
    python benchmarks/step_time.py --device cuda --precision fp16 --size base --max-tokens 4096 --json out.json

Every method gets a trainer of its own, fairseq's real one with the real criterion, and all of them train on the same
batches in turn: round 1 plain, round 1 R3F, …, round 2 plain, …. The figures are medians over rounds of the ratio
to plain *within* the round, which a machine that changes its speed leaves alone. Units are arithmetic from counted
passes: a forward 1, a full backward 2 for each forward below it, a backward to δ alone 1; plain is 3. ConAdv is told
the batch of the next round as the next update's; FreeAT's update is one of its replays. With ``--fused`` every
method is there twice, the second time with ``--adv-vocabulary fused``; all ratios are to fairseq's own plain training.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from machine import commit, cpu_name
from step_setting import begin, setting_parser
from step_subject import Subject, memory_of, peak_memory, write_corpus
from step_variants import chosen, named

Row = Dict[str, Any]


def measure(args: argparse.Namespace, words: int, folder: Path) -> List[Row]:
    """One row of figures for each method with a dictionary of *words* words."""
    from tqdm import tqdm

    data = write_corpus(folder, words, args.pairs)
    variants = chosen(args.methods, args.fused)
    subjects = [Subject(variant, data, args, folder) for variant in tqdm(variants, desc="building", unit="method")]
    times: Dict[str, List[float]] = {variant.name: [] for variant in variants}
    for number in tqdm(range(-1, args.rounds), desc=f"rounds, {words} words", unit="round"):
        batches = subjects[0].batches
        samples, following = batches[number % len(batches)], batches[(number + 1) % len(batches)]
        for subject in subjects:
            seconds = subject.step(samples, following)
            if number >= 0:  # the first round warms up
                times[subject.variant.name].append(seconds)
    rows = [row_of(subject, times) for subject in subjects]
    if not args.no_memory:
        for row, subject in zip(tqdm(rows, desc="memory", unit="method"), subjects):
            on_gpu = args.device == "cuda"
            row["peak_bytes"] = peak_memory(subject) if on_gpu else memory_of(subject.variant, args, words)
    return rows


def row_of(subject: Subject, times: Dict[str, List[float]]) -> Row:
    name = subject.variant.name
    ratios = [mine / plain for mine, plain in zip(times[name], times["plain"])]
    counts = subject.count_passes(subject.batches[0])
    return {
        "method": name,
        "forward": counts["forward"],
        "inner": counts["inner"],
        "no_graph": counts["no_graph"],
        "units": 3 * counts["forward"] - counts["inner"] - 2 * counts["no_graph"],
        "seconds": statistics.median(times[name]),
        "ratio": statistics.median(ratios),
    }


def describe(args: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{cpu_name()}, {args.threads} threads"
    return (
        f"{device}; torch {torch.__version__}; Python {platform.python_version()}; {args.size}, {args.precision}, "
        f"max-tokens {args.max_tokens}, {args.rounds} rounds, {args.clock} clock; seed 1; commit {commit()}"
    )


def print_table(rows: List[Row], fused: bool = False) -> None:
    """One line for each method; with *fused* what follows it in *rows* has columns beside it."""
    plain, step = rows[0], 2 if fused else 1
    titles = ["method", "forward passes", "of the ascent", "no graph", "units / plain"]
    for name in ("time / plain", "ms", "memory / plain"):
        titles += [name, "fused"] if fused else [name]
    print(f"| {' | '.join(titles)} |")
    print("|---" * len(titles) + "|")
    for first in range(0, len(rows), step):
        row, both = rows[first], rows[first : first + step]
        cells = [row["method"], *(f"{row[key]:.3g}" for key in ("forward", "inner", "no_graph"))]
        cells += [f"{row['units'] / 3:.2f}"]
        cells += [f"{each['ratio']:.2f}" for each in both] + [f"{1000 * each['seconds']:.0f}" for each in both]
        cells += [f"{each['peak_bytes'] / plain['peak_bytes']:.2f}" if "peak_bytes" in each else "–" for each in both]
        print(f"| {' | '.join(str(cell) for cell in cells)} |")


def plot(rows: List[Row], path: str) -> None:
    """Measured time beside predicted units, as bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.4 * len(rows) + 1.2), layout="constrained")
    places = range(len(rows))
    axes.barh([p - 0.2 for p in places], [row["ratio"] for row in rows], 0.4, label="measured time")
    axes.barh([p + 0.2 for p in places], [row["units"] / 3 for row in rows], 0.4, label="predicted from passes")
    axes.set_yticks(list(places), [row["method"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("update, relative to plain training")
    axes.legend()
    figure.savefig(path, dpi=150)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = setting_parser("Time, passes and memory of an update, by method.", [4000])
    parser.add_argument("--fused", action="store_true", help="each method with the vocabulary fused, too")
    parser.add_argument("--methods", nargs="*", default=[], help="rows to measure beside plain (all)")
    parser.add_argument("--no-memory", action="store_true", help="leave memory out: it takes a process for each method")
    parser.add_argument("--plot", metavar="FILE", help="write a bar chart (PNG) of the first dictionary's rows")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def print_memory(args: argparse.Namespace) -> None:
    """What :func:`memory_of` reads."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_corpus(Path(folder), args.words[0], args.pairs)
        print(peak_memory(Subject(named(args.memory_of), data, args, Path(folder))))


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    if not begin(args):
        return 2
    if args.memory_of:
        print_memory(args)
        return 0
    print(describe(args))
    tables: Dict[int, List[Row]] = {}
    for words in args.words:
        with tempfile.TemporaryDirectory() as folder:
            tables[words] = measure(args, words, Path(folder))
        print(f"\n{words} words\n")
        print_table(tables[words], args.fused)
    if args.json:
        Path(args.json).write_text(json.dumps({"setting": describe(args), "rows": tables}, indent=1))
    if args.plot:
        plot(tables[args.words[0]], args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
