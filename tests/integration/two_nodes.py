"""Two ``torchrun`` nodes on the loopback interface, as a launcher of two machines would start them.

``python -m torch.distributed.run --nnodes 2 … -m tests.integration.two_nodes JOBS`` runs many trainings in one pair of
processes. *JOBS* is a JSON file: a list of ``{"args": […], "cache_dirs": [one for each node], "stop": [epoch, updates]
or null, "lost": directory or null, "epochs": N, "result": PATH}``. After the *stop* a training saves a checkpoint,
loses the directory *lost* and is built anew; rank 0 writes losses and parameters (or the error) to PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List

import torch
import torch.distributed as dist

from tests.integration.rank_plan import answer
from tests.integration.running import Arguments, Run, build_trainer, free_port, run_command, save_checkpoint
from tests.integration.training import go_on


def run_on_two_nodes(words: List[Arguments], check: bool = True) -> List[Run]:
    """``torchrun … WORDS``, with one process, on each of two nodes at once; *words* are those of each node."""
    port = free_port()

    def node(rank: int) -> Run:
        launcher: List[Any] = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--node-rank", rank]
        launcher += ["--nproc-per-node", 1, "--master-addr", "127.0.0.1", "--master-port", port]
        return run_command([*launcher, *words[rank]], check=check)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(node, range(2)))


def train_on_two_nodes(jobs: List[Dict[str, Any]], directory: Path) -> List[Dict[str, Any]]:
    """The outcomes of *jobs*, in order."""
    for index, job in enumerate(jobs):
        job["result"] = str(directory / f"{index}.pt")
    plan = directory / "jobs.json"
    plan.write_text(json.dumps(jobs, default=str))
    run_on_two_nodes([["-m", "tests.integration.two_nodes", plan]] * 2)
    return [torch.load(job["result"], weights_only=True) for job in jobs]


def outcome(job: Dict[str, Any]) -> Dict[str, Any]:
    """Train, stopping and resuming where *job* says so."""
    rank, node = dist.get_rank(), int(os.environ["GROUP_RANK"])
    own = f"--distributed-world-size 2 --distributed-backend gloo --distributed-no-spawn --distributed-rank {rank}"
    args = [*job["args"], *own.split(), "--cache-dir", job["cache_dirs"][node]]
    stop, losses = job.get("stop") or [0, 0], []
    training = build_trainer(args)
    for epoch in range(1, job["epochs"] + 1):
        if epoch == stop[0]:
            losses += go_on(training, stop[1], epoch).losses
            save_checkpoint(training.trainer)
            training.criterion.perturbations.cache.close()
            dist.barrier()
            if job["lost"] == job["cache_dirs"][node]:
                shutil.rmtree(job["lost"])
            training = build_trainer(args)
        trained = go_on(training, None, epoch)
        losses += trained.losses
        save_checkpoint(training.trainer)
    training.criterion.perturbations.cache.close()
    dist.barrier()
    return {"losses": losses, "parameters": trained.parameters()}


def main(plan: Path) -> None:
    answer(plan, lambda job, *_: outcome(job))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
