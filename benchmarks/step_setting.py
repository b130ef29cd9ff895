"""The setting of a measurement of updates: its options, and what is refused before it begins."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import List

import torch
from step_subject import SIZES


def setting_parser(description: str, words: List[int]) -> argparse.ArgumentParser:
    """The options that every measurement of updates has; *words* are the sizes of the dictionary unless given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "amp", "fp16", "bf16"], default="fp32")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="small: 3+3 layers, d=256 (default)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="of a batch (1024)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: the process's own time, which others on a busy machine leave alone; needs --threads 1 (wall)",
    )
    parser.add_argument("--rounds", type=int, default=15, help="updates of each method that count (15)")
    shown = " ".join(map(str, words))
    parser.add_argument("--words", type=int, nargs="+", default=words, help=f"sizes of the dictionary ({shown})")
    parser.add_argument("--pairs", type=int, default=160, help="sentence pairs (160)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser


def begin(args: argparse.Namespace) -> bool:
    """Make this process ready for the setting of *args*; False, with the reason on stderr, if it cannot be had."""
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch sees no GPU", file=sys.stderr)
        return False
    if args.clock == "cpu" and (args.threads != 1 or args.device == "cuda"):
        print("--clock cpu needs --threads 1: threads that wait for each other are busy too", file=sys.stderr)
        return False
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    return True
