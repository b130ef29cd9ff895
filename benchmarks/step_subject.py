"""What ``step_time.py`` measures: random text, a trainer for each row, its passes and its memory."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import torch
from step_variants import Variant

SIZES = {"tiny": (1, 16, 32, 2), "small": (3, 256, 1024, 4), "base": (6, 512, 2048, 8), "big": (6, 1024, 4096, 16)}


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
        from fairseq_adv.in_process import build_trainer, epoch_batches

        layers, dim, inner, heads = SIZES[args.size]
        words = f"""{data} --source-lang en --target-lang de --save-dir {folder / variant.name.replace(" ", "_")}
            --task {variant.task} --arch transformer --encoder-layers {layers} --decoder-layers {layers}
            --encoder-embed-dim {dim} --decoder-embed-dim {dim} --encoder-ffn-embed-dim {inner}
            --decoder-ffn-embed-dim {inner} --encoder-attention-heads {heads} --decoder-attention-heads {heads}
            --share-all-embeddings --dropout 0.1 --criterion {variant.criterion} --label-smoothing 0.1
            --optimizer adam --lr 0.0001 --lr-scheduler fixed --max-tokens {args.max_tokens} --seed 1 --num-workers 0
            --required-batch-size-multiple 1 --no-save""".split()
        words += ["--cpu"] if args.device == "cpu" else []
        words += {"fp32": [], "amp": ["--amp"], "fp16": ["--fp16"], "bf16": ["--bf16"]}[args.precision]
        self.variant = variant
        self.clock = time.process_time if args.clock == "cpu" else time.perf_counter
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
        started = self.clock()
        self.training.trainer.train_step(samples)
        synchronise(self.training.trainer)
        return self.clock() - started

    def count_passes(self, samples: List[Any]) -> Dict[str, float]:
        """Forward passes of one update, by their rows (a pass over twice the rows counts twice); among them those to δ
        and without a graph.
        """
        from fairseq_adv.criterions.frame import batch

        frame_batch: Any = batch

        counts, rows = {"forward": 0.0, "inner": 0.0, "no_graph": 0.0}, samples[0]["target"].size(0)
        original = frame_batch.bare_pass

        def encoder_ran(_: Any, __: Any, output: Dict[str, Any]) -> None:
            passes = output["encoder_out"][0].size(1) / rows
            counts["forward"] += passes
            counts["no_graph"] += 0.0 if torch.is_grad_enabled() else passes

        def bare_pass(*args: Any) -> Any:
            if torch.is_grad_enabled():
                counts["inner"] += args[2]["target"].size(0) / rows
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


def memory_of(variant: Variant, args: argparse.Namespace, words: int) -> int:
    """:func:`peak_memory` in a process of its own, where nothing was ever larger."""
    command = [sys.executable, str(Path(__file__).with_name("step_time.py")), "--memory-of", variant.name]
    command += ["--device", args.device, "--size", args.size, "--words", str(words), "--pairs", str(args.pairs)]
    command += [
        "--clock",
        "wall",
        "--precision",
        args.precision,
        "--max-tokens",
        str(args.max_tokens),
        "--threads",
        str(args.threads),
    ]
    # memory that is freed goes back to the system at once, so that the peak is the program's own
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return int(done.stdout.split()[-1])
