#!/usr/bin/env python3
"""What an update costs: time, passes and memory of each method relative to plain training, in one interleaved run.

    python benchmarks/step_time.py                          # 3+3 layers, d=256, 2 threads, fp32 on the CPU
    python benchmarks/step_time.py --device cuda --precision fp16 --size base --max-tokens 4096 --json out.json

Every method gets a trainer of its own, fairseq's real one with the real criterion, and all of them train on the same
batches in turn: round 1 plain, round 1 R3F, …, round 2 plain, …. The figures are medians over rounds of the ratio
to plain *within* the round, which a machine that changes its speed leaves alone. Units are arithmetic from counted
passes: a forward 1, a full backward 2 for each forward below it, a backward to δ alone 1; plain is 3. ConAdv is told
the batch of the next round as the next update's; FreeAT's update is one of its replays.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

SIZES = {"small": (3, 256, 1024, 4), "base": (6, 512, 2048, 8), "big": (6, 1024, 4096, 16)}


@dataclass(frozen=True)
class Variant:
    """One row: a criterion with options; ``cached`` measures it in the epoch after a refresh."""

    name: str
    criterion: str
    options: Sequence[str] = ()
    cached: bool = False
    task: str = "translation"


NO_ASCENT = ("--adv-steps", "0")  # what fills the cache matters not

VARIANTS = [
    Variant("plain", "label_smoothed_cross_entropy"),
    Variant("r3f", "r3f_label_smoothed"),
    Variant("rdrop", "rdrop_label_smoothed"),
    Variant("simcut", "simcut_label_smoothed"),
    Variant("vat", "vat_label_smoothed"),
    Variant("smart S=3", "smart_label_smoothed"),
    Variant("freelb K=3", "freelb_label_smoothed"),
    Variant("disadv", "disadv_label_smoothed"),
    Variant("conadv lookahead", "conadv_label_smoothed", task="adversarial_translation"),
    Variant("conadv shifted", "conadv_label_smoothed", ("--conadv-mode", "shifted")),
    Variant("freeat", "freeat_label_smoothed", task="adversarial_translation"),
    Variant("scala kl", "scala_label_smoothed"),
    Variant("scala ce", "scala_label_smoothed", ("--scala-loss", "ce")),
    Variant("arch refresh S=3", "arch_label_smoothed"),
    Variant("arch cached", "arch_label_smoothed", NO_ASCENT, cached=True),
    Variant("arch cached, concat", "arch_label_smoothed", (*NO_ASCENT, "--adv-passes", "concat"), cached=True),
    Variant("arch cached, detached", "arch_label_smoothed", (*NO_ASCENT, "--adv-detach-clean"), cached=True),
    Variant("arch cached, perturbed", "arch_label_smoothed", (*NO_ASCENT, "--adv-objective", "perturbed"), cached=True),
]


def write_corpus(folder: Path, words: int, pairs: int) -> Path:
    """Binarised random text: words by a Zipf law, lengths by a log-normal one with a mean of about 25."""
    import contextlib
    import io

    from fairseq import options
    from fairseq_cli import preprocess

    generator = random.Random(1)
    weights = [1 / (rank + 3) for rank in range(words)]
    for split, count in (("train", pairs), ("valid", 8)):
        for language in ("en", "de"):
            lines = []
            for _ in range(count):
                length = max(1, min(100, round(generator.lognormvariate(3.1, 0.5))))
                body = generator.choices(range(words), weights, k=length)
                lines.append(" ".join(f"w{word}" for word in body))
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n")
    (folder / "words.txt").write_text("".join(f"w{word} 1\n" for word in range(words)))
    arguments = [
        "--srcdict",
        str(folder / "words.txt"),
        "--source-lang",
        "en",
        "--target-lang",
        "de",
        "--joined-dictionary",
        "--destdir",
        str(folder / "bin"),
    ]
    arguments += ["--trainpref", str(folder / "train"), "--validpref", str(folder / "valid")]
    with contextlib.redirect_stdout(io.StringIO()):
        preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
    return folder / "bin"


class Subject:
    """A variant's trainer, ready to be timed."""

    def __init__(self, variant: Variant, data: Path, args: argparse.Namespace, folder: Path) -> None:
        from tests.integration.running import build_trainer, epoch_batches

        layers, dim, inner, heads = SIZES[args.size]
        words = f"""{data} --source-lang en --target-lang de --save-dir {folder / variant.name.replace(" ", "_")}
            --task {variant.task} --arch transformer --encoder-layers {layers} --decoder-layers {layers}
            --encoder-embed-dim {dim} --decoder-embed-dim {dim} --encoder-ffn-embed-dim {inner}
            --decoder-ffn-embed-dim {inner} --encoder-attention-heads {heads} --decoder-attention-heads {heads}
            --share-all-embeddings --dropout 0.1 --criterion {variant.criterion} --label-smoothing 0.1
            --optimizer adam --lr 0.0001 --lr-scheduler fixed --max-tokens {args.max_tokens} --seed 1 --num-workers 0
            --required-batch-size-multiple 1 --no-save""".split()
        words += ["--cpu"] if args.device == "cpu" else []
        words += {"fp32": [], "amp": ["--amp"], "fp16": ["--fp16"]}[args.precision]
        self.variant = variant
        self.training = build_trainer([*words, *variant.options])
        self.batches = list(epoch_batches(self.training.trainer, 1))
        if variant.cached:
            for samples in self.batches:
                self.training.trainer.train_step(samples)
            self.training.trainer.begin_epoch(2)
        self.following: List[Any] = []
        if variant.task == "adversarial_translation":
            self.training.task.upcoming_batches = lambda: self.following
            self.training.task.present_size = lambda: 1

    def step(self, samples: List[Any], following: List[Any]) -> float:
        """Seconds of one update on *samples*, the next one's being *following*."""
        self.following = list(following)  # a new list: a new update
        synchronise(self.training.trainer)
        started = time.perf_counter()
        self.training.trainer.train_step(samples)
        synchronise(self.training.trainer)
        return time.perf_counter() - started

    def count_passes(self, samples: List[Any]) -> Dict[str, int]:
        """Forward passes of one update (a pass over twice the rows counts twice); among them those to δ and without
        a graph."""
        from fairseq_adv.criterions.frame import batch

        frame_batch: Any = batch

        counts, rows = {"forward": 0, "inner": 0, "no_graph": 0}, samples[0]["target"].size(0)
        original = frame_batch.bare_pass

        def encoder_ran(_: Any, __: Any, output: Dict[str, Any]) -> None:
            passes = output["encoder_out"][0].size(1) // rows
            counts["forward"] += passes
            counts["no_graph"] += 0 if torch.is_grad_enabled() else passes

        def bare_pass(*args: Any) -> Any:
            counts["inner"] += 1
            return original(*args)

        self.step(samples, samples)
        handle = self.training.model.encoder.register_forward_hook(encoder_ran)
        frame_batch.bare_pass = bare_pass
        try:
            self.step(samples, samples)
        finally:
            handle.remove()
            frame_batch.bare_pass = original
        return counts


def synchronise(trainer: Any) -> None:
    if trainer.cuda:
        torch.cuda.synchronize()


def peak_memory(subject: Subject) -> int:
    """Bytes that two updates need on top of model and optimizer state."""
    largest = max(subject.batches, key=lambda samples: samples[0]["ntokens"])
    subject.step(subject.batches[0], largest)
    if subject.training.trainer.cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        subject.step(largest, largest)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    subject.step(largest, largest)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def memory_of(variant: Variant, args: argparse.Namespace) -> int:
    """:func:`peak_memory` in a process of its own, where nothing was ever larger."""
    words = [sys.executable, __file__, "--memory-of", variant.name, "--device", args.device, "--size", args.size]
    words += ["--words", str(args.words), "--pairs", str(args.pairs)]
    words += ["--precision", args.precision, "--max-tokens", str(args.max_tokens), "--threads", str(args.threads)]
    # memory that is freed goes back to the system at once, so that the peak is the program's own
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=env)
    return int(done.stdout.split()[-1])


def measure(args: argparse.Namespace, folder: Path) -> List[Dict[str, Any]]:
    """One row of figures for each variant."""
    from tqdm import tqdm

    data = write_corpus(folder, args.words, args.pairs)
    chosen = [v for v in VARIANTS if v.name == "plain" or not args.methods or v.name in args.methods]
    subjects = [Subject(variant, data, args, folder) for variant in tqdm(chosen, desc="building", unit="method")]
    times: Dict[str, List[float]] = {v.name: [] for v in chosen}
    for number in tqdm(range(-1, args.rounds), desc="rounds", unit="round"):
        batches = subjects[0].batches
        samples, following = batches[number % len(batches)], batches[(number + 1) % len(batches)]
        for subject in subjects:
            seconds = subject.step(samples, following)
            if number >= 0:  # the first round warms up
                times[subject.variant.name].append(seconds)
    rows = []
    for subject in subjects:
        name = subject.variant.name
        ratios = [mine / plain for mine, plain in zip(times[name], times["plain"])]
        counts = subject.count_passes(subjects[0].batches[0])
        rows.append(
            {
                "method": name,
                "forward": counts["forward"],
                "inner": counts["inner"],
                "no_graph": counts["no_graph"],
                "units": 3 * counts["forward"] - counts["inner"] - 2 * counts["no_graph"],
                "seconds": statistics.median(times[name]),
                "ratio": statistics.median(ratios),
            }
        )
    if not args.no_memory:
        for row, subject in zip(tqdm(rows, desc="memory", unit="method"), subjects):
            row["peak_bytes"] = memory_of(subject.variant, args)
    return rows


def describe(args: argparse.Namespace) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    device = (
        torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()} CPU, {args.threads} threads"
    )
    return (
        f"{device}; torch {torch.__version__}; Python {platform.python_version()}; {args.size}, {args.precision}, "
        f"max-tokens {args.max_tokens}, {args.rounds} rounds; seed 1; commit {commit.stdout.strip() or 'unknown'}"
    )


def print_table(rows: List[Dict[str, Any]]) -> None:
    plain = rows[0]
    print("| method | forward passes | of the ascent | no graph | units / plain | time / plain | ms | memory / plain |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        memory = f"{row['peak_bytes'] / plain['peak_bytes']:.2f}" if "peak_bytes" in row else "–"
        print(
            f"| {row['method']} | {row['forward']} | {row['inner']} | {row['no_graph']} | {row['units'] / 3:.2f} | "
            f"{row['ratio']:.2f} | {1000 * row['seconds']:.0f} | {memory} |"
        )


def plot(rows: List[Dict[str, Any]], path: str) -> None:
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
    parser = argparse.ArgumentParser(description="Time, passes and memory of an update, by method.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "amp", "fp16"], default="fp32")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="small: 3+3 layers, d=256 (default)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="of a batch (1024)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--rounds", type=int, default=15, help="updates of each method that count (15)")
    parser.add_argument("--words", type=int, default=4000, help="size of the dictionary (4000)")
    parser.add_argument("--pairs", type=int, default=160, help="sentence pairs (160)")
    parser.add_argument("--methods", nargs="*", default=[], help="rows to measure beside plain (all)")
    parser.add_argument("--no-memory", action="store_true", help="leave memory out: it takes a process for each method")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--plot", metavar="FILE", help="write a bar chart (PNG)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    import logging

    args = parse(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch sees no GPU", file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        if args.memory_of:
            variant = next(v for v in VARIANTS if v.name == args.memory_of)
            data = write_corpus(Path(folder), args.words, args.pairs)
            print(peak_memory(Subject(variant, data, args, Path(folder))))
            return 0
        rows = measure(args, Path(folder))
    print(describe(args))
    print_table(rows)
    if args.json:
        Path(args.json).write_text(json.dumps({"setting": describe(args), "rows": rows}, indent=1))
    if args.plot:
        plot(rows, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
