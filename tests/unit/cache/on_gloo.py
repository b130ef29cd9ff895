"""Three processes of a real gloo group, the last two with an own directory: ``python -m tests.unit.cache.on_gloo DIR``.

They commit, the second place loses its directory, and all go back to the checkpoint. Rank 0 prints as JSON the sizes of
the messages that it took part in and the bytes of the shards.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Dict

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from fairseq_adv.cache import TorchComm, exchange
from tests.unit.cache.caches import open_for_writing, put, reader_of, refresh

CHUNK = 1000
IDS = list(range(24))


def run(rank: int, root: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/rendezvous", rank=rank, world_size=3)
    exchange.CHUNK_BYTES = CHUNK
    sizes, broadcast = [], dist.broadcast

    def recorded(tensor: torch.Tensor, *args, **kwargs):
        sizes.append(tensor.numel())
        return broadcast(tensor, *args, **kwargs)

    where = root / f"node{min(rank, 1)}"
    options: Dict[str, Any] = dict(rank=rank, world_size=3, comm=TorchComm(), placement="node-local")
    cache = open_for_writing(where, **options)
    dist.broadcast = recorded
    refresh(cache, IDS[rank::3], 1)
    dist.broadcast = broadcast
    cache.begin_refresh(2)
    put(cache, IDS[rank:12:3], 2)
    cache.prepare_checkpoint()
    state = cache.state_dict()
    cache.close()
    dist.barrier()
    if rank == 1:
        shutil.rmtree(where)
    dist.barrier()
    cache = open_for_writing(where, **options)
    cache.load_state_dict(state)
    cache.begin_refresh(2)
    put(cache, IDS[12 + rank :: 3], 2)
    if rank == 0:
        shards = sum(entry["size"] for entry in reader_of(cache).manifest.shards)
        print(json.dumps({"sizes": sizes, "shards": shards}))
    cache.commit(expected_ids=IDS)
    cache.close()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    multiprocessing.start_processes(run, (Path(sys.argv[1]),), nprocs=3, start_method="fork")
