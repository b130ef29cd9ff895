#!/usr/bin/env python3
"""An update of R-Drop, SimCut and R3F here against the public code's computation, in one interleaved run.

    python benchmarks/peers.py                              # 3+3 layers, d=256, 4,000 and 32,000 words, on the CPU
    python benchmarks/peers.py --words 32000 --json out.json
    python benchmarks/peers.py --device cuda --precision fp16 --size base --max-tokens 4096
    python benchmarks/peers.py --public-simcut label_smoothed_cross_entropy_with_simcut.py   # the authors' own file

All have the same model, batches, torch and fairseq, and run in turn: round 1 peer, round 1 ours, …. R-Drop's peer is
fairseq's own criterion; the others are in ``peer_criterions.py``. The ratio is the median over rounds of ours to the
peer's *within* the round, with the quartiles beside it: below 1 ours is faster.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence

from step_setting import begin, setting_parser
from step_subject import Subject, write_corpus
from step_time import describe
from step_variants import Variant

CONCAT = ("--adv-passes", "concat")
PLAIN = Variant("plain", "label_smoothed_cross_entropy")
# the peer of each method, and what of ours does the same
PEERS = {
    "rdrop": Variant("rdrop, fairseq", "label_smoothed_cross_entropy_with_rdrop", ("--rdrop-alpha", "5")),
    "simcut": Variant("simcut, public computation", "peer_simcut"),
    "r3f": Variant("r3f, public computation", "peer_r3f"),
}
OURS = {
    "rdrop": [Variant("rdrop", "rdrop_label_smoothed"), Variant("rdrop, concat", "rdrop_label_smoothed", CONCAT)],
    "simcut": [Variant("simcut", "simcut_label_smoothed"), Variant("simcut, concat", "simcut_label_smoothed", CONCAT)],
    "r3f": [
        Variant("r3f, source", "r3f_label_smoothed", ("--adv-sides", "src")),
        Variant("r3f, source, concat", "r3f_label_smoothed", ("--adv-sides", "src", *CONCAT)),
    ],
}
PUBLIC_SIMCUT = ("--alpha", "3", "--p", "0.05")


def chosen(args: argparse.Namespace) -> List[Variant]:
    """Plain training, and each method's peer before what of ours does the same."""
    variants = [PLAIN]
    for method in args.methods:
        variants += [PEERS[method], *OURS[method]]
    if args.public_simcut and "simcut" in args.methods:
        from peer_criterions import register_public_simcut

        name = register_public_simcut(args.public_simcut)
        variants.append(Variant("simcut, authors' file", name, PUBLIC_SIMCUT))
    return variants


def build(variant: Variant, data: Path, args: argparse.Namespace, folder: Path) -> Subject:
    from peer_criterions import take_simcut_p

    subject = Subject(variant, data, args, folder)
    if variant.options == PUBLIC_SIMCUT:
        take_simcut_p(subject.training.model)
    return subject


def measure(words: int, args: argparse.Namespace) -> List[Dict[str, Any]]:
    """One row for each variant at a dictionary of *words* words."""
    from tqdm import tqdm

    with tempfile.TemporaryDirectory() as folder:
        data = write_corpus(Path(folder), words, args.pairs)
        subjects = [build(v, data, args, Path(folder)) for v in tqdm(chosen(args), desc="building", unit="criterion")]
        times: Dict[str, List[float]] = {subject.variant.name: [] for subject in subjects}
        for number in tqdm(range(-1, args.rounds), desc=f"rounds, {words} words", unit="round"):
            batches = subjects[0].batches
            samples = batches[number % len(batches)]
            for subject in subjects:
                own = copy.deepcopy(samples)  # fairseq's R-Drop doubles its batch in place
                seconds = subject.step(own, own)
                if number >= 0:  # the first round warms up
                    times[subject.variant.name].append(seconds)
    return rows_of(words, args.methods, times)


def rows_of(words: int, methods: Sequence[str], times: Dict[str, List[float]]) -> List[Dict[str, Any]]:
    """Each variant's time, relative to plain training and, for ours, to the peer."""
    peer_of = {variant.name: PEERS[method].name for method in methods for variant in OURS[method]}
    rows = []
    for name, mine in times.items():
        row: Dict[str, Any] = {"words": words, "method": name, "seconds": statistics.median(mine)}
        row["to_plain"] = statistics.median(ratios(mine, times[PLAIN.name]))
        if name in peer_of:
            row["to_peer"] = quartiles(ratios(mine, times[peer_of[name]]))
        rows.append(row)
    return rows


def ratios(mine: Sequence[float], others: Sequence[float]) -> List[float]:
    return [a / b for a, b in zip(mine, others)]


def quartiles(values: Sequence[float]) -> List[float]:
    """The quarter, the median and three quarters."""
    return statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3


def print_table(rows: List[Dict[str, Any]]) -> None:
    print("| words | criterion | ms | time / plain | time / peer | quartiles |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        low, middle, high = row.get("to_peer", [None] * 3)
        beside = "– | –" if middle is None else f"{middle:.2f} | {low:.2f} … {high:.2f}"
        print(
            f"| {row['words']} | {row['method']} | {1000 * row['seconds']:.0f} | {row['to_plain']:.2f} | {beside} |",
            flush=True,
        )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = setting_parser("R-Drop, SimCut and R3F here against the public code's computation.", [4000, 32000])
    parser.add_argument("--methods", nargs="+", choices=list(PEERS), default=list(PEERS), help="methods (all)")
    parser.add_argument("--public-simcut", metavar="FILE", help="SimCut's public criterion file, fetched by you")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    if not begin(args):
        return 2
    tables = {words: measure(words, args) for words in args.words}
    print(describe(args))
    print_table([row for rows in tables.values() for row in rows])
    if args.json:
        Path(args.json).write_text(json.dumps({"setting": describe(args), "rows": tables}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
