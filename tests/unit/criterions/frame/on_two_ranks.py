"""Two ranks of gloo reduce gradients by hand: ``python -m tests.unit.criterions.frame.on_two_ranks DIR``.

Rank 0 saves into DIR what the tests compare: gradients by torch's own reduction and by ours, in both precisions, and
the buffers of both ranks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, List

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import DDPCommHookType, register_ddp_comm_hook
from torch.nn.parallel import DistributedDataParallel

from fairseq_adv.criterions.frame.reduction import reduce_gradients_once


class Model(nn.Module):
    """A layer and a running mean, which differs between the ranks."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(6, 5)
        self.register_buffer("mean", torch.full((2,), float(rank)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).square().sum()


def gradients(rank: int, by_hand: bool, half: bool) -> List[Tensor]:
    """After one update of :class:`Model` on the ranks' own inputs."""
    wrapper: Any = DistributedDataParallel(Model(rank), find_unused_parameters=by_hand)
    if half and not by_hand:
        register_ddp_comm_hook(DDPCommHookType.FP16_COMPRESS, wrapper)
    if by_hand:
        reduce_gradients_once(wrapper, half)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(rank))
    wrapper(x).backward()
    if by_hand:
        wrapper.all_reduce_grads()
    return [parameter.grad for parameter in wrapper.parameters()]


def buffers(rank: int, broadcast: bool) -> Tensor:
    """The rank's running mean after three micro-batches, in each of which it moves off the first rank's."""
    wrapper: Any = DistributedDataParallel(Model(rank), find_unused_parameters=True, broadcast_buffers=broadcast)
    for _ in range(3):
        wrapper.module.mean += rank
        reduce_gradients_once(wrapper)
        wrapper(torch.ones(1, 6)).backward()
    return wrapper.module.mean


def run(rank: int, root: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/rendezvous", rank=rank, world_size=2)
    found = {
        f"{'half' if half else 'full'} {'hand' if by_hand else 'torch'}": gradients(rank, by_hand, half)
        for half in (False, True)
        for by_hand in (False, True)
    }
    for name, broadcast in (("alike", True), ("apart", False)):
        both = [torch.zeros(2), torch.zeros(2)]
        dist.all_gather(both, buffers(rank, broadcast))
        found[name] = both
    if rank == 0:
        torch.save(found, root / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    multiprocessing.start_processes(run, (Path(sys.argv[1]),), nprocs=2, start_method="fork")
