"""``torchrun fairseq-train``: one job over all ranks, on GPUs as before and on CPUs with gloo."""

from __future__ import annotations

import os
from typing import Any, Callable

import torch
import torch.distributed as dist

from fairseq_adv.compat.patch import replaces

_LAUNCHER_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")


def _launched_world_size() -> int:
    """How many processes torchrun (or a launcher with its variables) started; 1 without one."""
    if not all(name in os.environ for name in _LAUNCHER_VARIABLES):
        return 1
    return int(os.environ["WORLD_SIZE"])


@replaces("fairseq.distributed.utils.call_main")
def train_one_job(original: Callable[..., Any]) -> Callable[..., Any]:
    """torchrun trains one job over its ranks where fairseq would train a separate job on each.

    ``infer_init_method`` looks at torchrun's variables only if ``--distributed-world-size`` is not 1, and its
    default is the number of GPUs: on CPUs, and on nodes with one GPU each, every rank trains by itself and
    writes over the others' checkpoints. Training alone is concerned (only it names an optimizer);
    generation under torchrun stays as it was. Fairseq's own spawning needs GPUs: without any it would start
    no process and report success, which becomes an error here.
    """

    def call_main(cfg: Any, main: Callable[..., Any], **kwargs: Any) -> Any:
        training = cfg.distributed_training
        inferred = training.distributed_init_method is None
        if inferred and not cfg.common.tpu and cfg.optimizer is not None and training.distributed_world_size == 1:
            training.distributed_world_size = _launched_world_size()
        if not inferred and not training.distributed_no_spawn and torch.cuda.device_count() == 0:
            raise ValueError(
                f"--distributed-init-method {training.distributed_init_method} without a GPU starts no process: run "
                f"`torchrun --nproc_per_node {training.distributed_world_size} $(which fairseq-train) …` without "
                "the --distributed-* options except --distributed-backend gloo, or add --distributed-no-spawn"
            )
        return original(cfg, main, **kwargs)

    return call_main


@replaces("fairseq.distributed.utils._infer_torch_distributed_launch_init")
def choose_device_by_local_rank(original: Callable[..., Any]) -> Callable[..., Any]:
    """torchrun's LOCAL_RANK picks the GPU, and a machine without GPUs gets device 0.

    Fairseq computes RANK % number of GPUs: a division by zero on CPUs, and the wrong GPU on later nodes that
    run fewer processes than they have GPUs.
    """

    def infer(cfg: Any) -> None:
        cfg.distributed_init_method = "env://"
        cfg.distributed_world_size = int(os.environ["WORLD_SIZE"])
        cfg.distributed_rank = int(os.environ["RANK"])
        local_rank = int(os.environ.get("LOCAL_RANK", cfg.distributed_rank))
        cfg.device_id = local_rank % max(1, torch.cuda.device_count())
        cfg.distributed_no_spawn = True

    return infer


@replaces("fairseq.models.distributed_fairseq_model.DistributedDataParallel")
def wrap_cpu_models(original: Callable[..., Any]) -> Callable[..., Any]:
    """``--ddp-backend pytorch_ddp`` works for a model on the CPU.

    Fairseq always names a GPU in ``device_ids``, which torch refuses for CPU modules.
    """

    def wrap(module: torch.nn.Module, **kwargs: Any) -> Any:
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            kwargs.update(device_ids=None, output_device=None)
        return original(module=module, **kwargs)

    return wrap


@replaces("fairseq.distributed.utils.all_gather_list")
def gather_lists_on_cpu(original: Callable[..., Any]) -> Callable[..., Any]:
    """Logs that cannot be summed are gathered through CPU memory when the process group is gloo.

    Fairseq allocates its buffer with ``torch.cuda.ByteTensor``. It keeps the buffer on the function and
    allocates only when that one is too small, so a CPU buffer put there beforehand is used.
    """
    from fairseq.distributed import utils as distributed_utils

    def all_gather_list(data: Any, group: Any = None, max_size: int = 16384) -> Any:
        here = distributed_utils.all_gather_list  # what fairseq calls by this name: the replacement itself
        group = distributed_utils.get_global_group() if group is None else group
        if not torch.cuda.is_available() or dist.get_backend(group) == "gloo":
            needed = max_size * distributed_utils.get_world_size(group=group)
            if not hasattr(here, "_buffer") or here._buffer.numel() < needed:
                here._buffer = torch.zeros(needed, dtype=torch.uint8)
                here._cpu_buffer = torch.zeros(max_size, dtype=torch.uint8)
        return original(data, group=group, max_size=max_size)

    return all_gather_list
