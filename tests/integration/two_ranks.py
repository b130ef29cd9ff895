"""``torchrun --nproc_per_node 2 -m tests.integration.two_ranks JOBS``: many trainings in one pair of processes.

Starting processes costs more than these trainings. *JOBS* is a JSON file: a list of ``{"args": […], "result": PATH}``;
rank 0 writes losses, gradient norms and parameters after one epoch (or the error) to each PATH.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import torch

from tests.integration.rank_plan import answer
from tests.integration.running import free_port, run_command
from tests.integration.training import Trained, train

DISTRIBUTED = "--distributed-world-size 2 --distributed-backend gloo --distributed-no-spawn"


def outcome(trained: Trained) -> Dict[str, Any]:
    """What is compared between one rank and two."""
    norms = trained.gradient_norms
    return {"losses": trained.losses, "norms": norms, "parameters": trained.parameters()}


def train_on_two_ranks(jobs: List[Dict[str, Any]], directory: Path) -> List[Dict[str, Any]]:
    """Run the ``args`` of each of *jobs* for an epoch on two ranks; the outcomes, or ``{"error": …}``, in order."""
    for index, job in enumerate(jobs):
        job["result"] = str(directory / f"{index}.pt")
    plan = directory / "jobs.json"
    plan.write_text(json.dumps(jobs, default=str))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", free_port()]
    run_command([*launcher, "-m", "tests.integration.two_ranks", plan])
    return [torch.load(job["result"], weights_only=True) for job in jobs]


def main(plan: Path) -> None:
    own = DISTRIBUTED.split()
    answer(plan, lambda job, rank, _: outcome(train([*job["args"], *own, "--distributed-rank", str(rank)])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
