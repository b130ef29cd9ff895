"""Time one optimizer step on the parameters of a Transformer-base: ours, torch's and timm's.

    python benchmarks/optimizer_step.py --rounds 30 --threads 2
    python benchmarks/optimizer_step.py --device cuda --json > steps.json

All contestants own a copy of the same parameters and gradients and take turns within each round, so
that a busy machine slows all of them alike. Printed are median milliseconds and the ratio of the
medians to torch's fused AdamW. timm is measured if it is installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
import time
import types
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import fairseq
import torch
from machine import describe_machine
from tqdm import tqdm

from fairseq_adv.optim import AdamW, Lamb, Lars
from fairseq_adv.optim.param_groups import split_by_shape

BASELINE = "torch AdamW (fused)"
LAYERS, WIDTH, INNER, VOCABULARY = 6, 512, 2048, 32_000


def transformer_base_shapes() -> List[tuple]:
    """Shapes of Transformer-base with one shared embedding matrix: 60.5 million parameters."""
    attention = [(WIDTH, WIDTH), (WIDTH,)] * 4
    feed_forward = [(INNER, WIDTH), (INNER,), (WIDTH, INNER), (WIDTH,)]
    norm = [(WIDTH,), (WIDTH,)]
    encoder = attention + norm + feed_forward + norm
    decoder = attention + norm + attention + norm + feed_forward + norm
    return [(VOCABULARY, WIDTH)] + encoder * LAYERS + decoder * LAYERS


def make_parameters(device: torch.device, seed: int) -> List[torch.nn.Parameter]:
    """Parameters with gradients, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    params = []
    for shape in transformer_base_shapes():
        param = torch.nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(device))
        param.grad = (1e-3 * torch.randn(shape, generator=generator)).to(device)
        params.append(param)
    return params


def timm_lamb() -> Optional[Callable]:
    """timm's ``Lamb`` without timm's other imports, which want torchvision; None if not installed."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return None
    package = types.ModuleType("timm_optim_only")
    package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "optim")]
    sys.modules["timm_optim_only"] = package
    return importlib.import_module("timm_optim_only.lamb").Lamb


def contestants(device: torch.device, seed: int) -> Dict[str, Callable[[], Any]]:
    """Name → step function; every optimizer decays weights and excludes biases and LayerNorm."""

    def groups(decay: float) -> List[Dict[str, Any]]:
        split = split_by_shape(make_parameters(device, seed))
        return [{"params": g["params"], "weight_decay": 0.0 if g["excluded"] else decay} for g in split]

    def ours() -> List[Dict[str, Any]]:
        return split_by_shape(make_parameters(device, seed))

    steps: Dict[str, Callable[[], Any]] = {
        BASELINE: torch.optim.AdamW(groups(0.01), lr=1e-6, fused=True).step,
        "adv_adamw": AdamW(ours(), lr=1e-6, weight_decay=0.01).step,
        "adv_lamb": Lamb(ours(), lr=1e-6, weight_decay=0.01).step,
        "adv_lars": Lars(ours(), lr=1e-6, weight_decay=0.01).step,
    }
    timm = timm_lamb()
    if timm is not None:
        steps["timm Lamb"] = timm(groups(0.01), lr=1e-6, max_grad_norm=None).step
    return steps


def measure(steps: Dict[str, Callable[[], Any]], rounds: int, device: torch.device) -> Dict[str, List[float]]:
    """Milliseconds of each step, one per round; two rounds of warm-up are not counted."""
    times: Dict[str, List[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in tqdm(range(-2, rounds), desc="rounds", file=sys.stderr):
        for offset in range(len(names)):  # rotate, so that nobody always follows the same neighbour
            name = names[(turn + offset) % len(names)]
            start = _now(device)
            steps[name]()
            elapsed = 1000 * (_now(device) - start)
            if turn >= 0:
                times[name].append(elapsed)
    return times


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def summarise(times: Dict[str, List[float]]) -> Dict[str, Dict[str, float]]:
    """Median, quartiles and ratio to the baseline of each contestant, fastest first."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = {}
    for name in sorted(medians, key=lambda n: medians[n]):
        low, _, high = statistics.quantiles(times[name], n=4)
        rows[name] = {"median_ms": medians[name], "q1_ms": low, "q3_ms": high}
        rows[name]["ratio"] = medians[name] / medians[BASELINE]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="measured steps of each optimizer, default 30")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, default 0 = torch's choice")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--seed", type=int, default=1, help="of parameters and gradients, default 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f"--rounds must be >= 2, got {args.rounds}")
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    rows = summarise(measure(contestants(device, args.seed), args.rounds, device))
    parameters = sum(torch.Size(shape).numel() for shape in transformer_base_shapes())
    facts = {**describe_machine(args.device, "timm"), "fairseq": fairseq.__version__}
    report = {**facts, "parameters": parameters, "rounds": args.rounds, "seed": args.seed}
    if args.json:
        print(json.dumps({**report, "optimizers": rows}, indent=2))
        return 0
    print("  ".join(f"{key} {value}" for key, value in report.items()))
    print(f"{'optimizer':<22}{'median ms':>12}{'quartiles':>18}{'ratio':>8}")
    for name, row in rows.items():
        quartiles = f"{row['q1_ms']:.1f}–{row['q3_ms']:.1f}"
        print(f"{name:<22}{row['median_ms']:>12.1f}{quartiles:>18}{row['ratio']:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
