"""What the modules that torchrun starts share: many jobs in one group of processes, each with its outcome in a file."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Dict

import torch
import torch.distributed as dist


def answer(plan: Path, outcome: Callable[[Dict[str, Any], int, int], Dict[str, Any]]) -> None:
    """``outcome(job, rank, ranks)`` for each job of *plan*; rank 0 writes it (any rank its error) to ``result``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for job in json.loads(plan.read_text()):
        try:
            result = outcome(job, rank, ranks)
        except Exception:
            result = {"error": traceback.format_exc()}
        if rank == 0 or "error" in result:
            torch.save(result, job["result"])
        if "error" in result:  # the other ranks may wait for this one for ever
            print(result["error"], file=sys.stderr, flush=True)
            os._exit(1)
    dist.destroy_process_group()
