"""``torchrun … -m tests.integration.resume_on_ranks JOBS``: trainings on several ranks, stopped and resumed.

*JOBS* is a JSON file: a list of ``{"args": […], "stops": [updates, …], "result": PATH}``. Each training saves a
checkpoint and is built anew after each of the *stops* (counted in updates of the whole training) and ends with its
epoch; rank 0 writes losses, gradient norms, batches and parameters (or the error) to each PATH.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import torch
import torch.distributed as dist

from tests.integration.rank_plan import answer
from tests.integration.running import free_port, run_command, save_checkpoint
from tests.integration.training import train


def train_on_ranks(ranks: int, jobs: List[Dict[str, Any]], directory: Path) -> List[Dict[str, Any]]:
    """Run *jobs* (``args`` and perhaps ``stops``) one after the other on the same *ranks*; their outcomes, in order."""
    for index, job in enumerate(jobs):
        job["result"] = str(directory / f"{index}.pt")
    plan = directory / "jobs.json"
    plan.write_text(json.dumps(jobs, default=str))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", ranks, "--master_port", free_port()]
    run_command([*launcher, "-m", "tests.integration.resume_on_ranks", plan])
    return [torch.load(job["result"], weights_only=True) for job in jobs]


def in_parts(args: List[str], stops: List[int]) -> Dict[str, Any]:
    """One epoch, saved and built anew at each of *stops*."""
    result: Dict[str, Any] = {"losses": [], "norms": [], "batch_tokens": [], "targets": [], "rates": []}
    for begin, end in zip([0, *stops], [*stops, None]):
        trained = train(args, None if end is None else end - begin)
        result["losses"] += trained.losses
        result["norms"] += trained.gradient_norms
        result["batch_tokens"] += [log.get("batch_tokens") for log in trained.logs]
        result["targets"] += [log.get("batch_tokens_target") for log in trained.logs]
        result["parameters"] = trained.parameters()
        if end is not None:
            save_checkpoint(trained.training.trainer)
            if dist.is_initialized():
                dist.barrier()
    return result


def on_this_rank(job: Dict[str, Any], rank: int, ranks: int) -> Dict[str, Any]:
    own = (
        f"--distributed-world-size {ranks} --distributed-backend gloo --distributed-no-spawn --distributed-rank {rank}"
    )
    return in_parts([*job["args"], *own.split()], job.get("stops", []))


def main(plan: Path) -> None:
    answer(plan, on_this_rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
