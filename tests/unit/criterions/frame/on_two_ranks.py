"""Two ranks of gloo reduce gradients by hand: ``python -m tests.unit.criterions.frame.on_two_ranks DIR``.

Rank 0 saves into DIR what the tests compare: gradients by torch's own reduction and by ours, in both precisions, and
the buffers of both ranks, also where they have different numbers of passes.
"""

from __future__ import annotations

import sys
from datetime import timedelta
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
    """The rank's running mean after three updates, in each of which it moves off the first rank's."""
    wrapper: Any = DistributedDataParallel(Model(rank), find_unused_parameters=True, broadcast_buffers=broadcast)
    for _ in range(3):
        wrapper.module.mean += rank
        reduce_gradients_once(wrapper)
        wrapper(torch.ones(1, 6)).backward()
        wrapper.all_reduce_grads()
    return wrapper.module.mean


def with_other_numbers_of_passes(rank: int, by_hand: bool) -> List[Tensor]:
    """Buffers and gradients after two updates in which the first rank has more passes than the second (a dummy batch),
    and, where gradients are reduced *by_hand*, more micro-batches too.
    """
    wrapper: Any = DistributedDataParallel(Model(rank), find_unused_parameters=by_hand, broadcast_buffers=True)
    for _ in range(2):
        wrapper.module.mean += rank
        for _ in range(2 if by_hand and rank == 0 else 1):
            reduce_gradients_once(wrapper)
            sum(wrapper(torch.ones(1, 6)) for _ in range(2 - rank)).backward()
        getattr(wrapper, "all_reduce_grads", lambda: None)()
    return [wrapper.module.mean, *(parameter.grad for parameter in wrapper.parameters())]


def run(rank: int, root: Path) -> None:
    torch.set_num_threads(1)
    patience = timedelta(seconds=30)
    dist.init_process_group("gloo", init_method=f"file://{root}/rendezvous", rank=rank, world_size=2, timeout=patience)
    found = {
        f"{'half' if half else 'full'} {'hand' if by_hand else 'torch'}": gradients(rank, by_hand, half)
        for half in (False, True)
        for by_hand in (False, True)
    }
    for name, broadcast in (("alike", True), ("apart", False)):
        both = [torch.zeros(2), torch.zeros(2)]
        dist.all_gather(both, buffers(rank, broadcast))
        found[name] = both
    for by_hand in (False, True):
        own = torch.cat([tensor.flatten() for tensor in with_other_numbers_of_passes(rank, by_hand)])
        both = [torch.zeros_like(own), torch.zeros_like(own)]
        dist.all_gather(both, own)
        found[f"uneven {'hand' if by_hand else 'torch'}"] = both
    if rank == 0:
        torch.save(found, root / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    multiprocessing.start_processes(run, (Path(sys.argv[1]),), nprocs=2, start_method="fork")
