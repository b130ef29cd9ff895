"""Gradients of several passes, reduced over the ranks once for each update."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ContextManager, Iterator, List, Optional, cast

import torch
import torch.distributed as dist
from fairseq.models import FairseqMultiModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fairseq_adv.criterions.frame.perturbable import bare_model

_BUCKET = 1 << 24  # numbers that are reduced at once
_UNFIT_BACKENDS = {
    "fully_sharded": "frees parameters after each pass, but a method runs several, some of them on the bare model",
    "slowmo": "averages parameters between updates, which has not been tried with a method's several passes",
}


def refuse_backend(backend: str) -> None:
    """Raise ``ValueError`` for a ``--ddp-backend`` that several passes for one update cannot run on."""
    if backend in _UNFIT_BACKENDS:
        raise ValueError(f"--ddp-backend {backend} {_UNFIT_BACKENDS[backend]}; choose legacy_ddp or pytorch_ddp")


def no_gradient_sync(model: nn.Module) -> ContextManager[None]:
    """Inside, a backward pass of a distributed *model* keeps its gradients to this rank."""
    return cast(Any, model).no_sync() if hasattr(model, "no_sync") else nullcontext()


class AtTheEnd:
    """What the trainer's call of ``all_reduce_grads`` does in the place of *wrapper*: once an update, on every rank."""

    def __init__(self, wrapper: DistributedDataParallel, half: bool) -> None:
        self._wrapper, self._half = wrapper, half
        self.takes_gradients = self.takes_buffers = False

    def __call__(self) -> None:
        if self.takes_gradients:
            mean_over_ranks(self._wrapper, self._half)
        if self.takes_buffers:
            copy_buffers(self._wrapper)


def reduce_gradients_once(model: nn.Module, half: bool = False) -> None:
    """Have the trainer reduce *model*'s gradients after an update's last backward pass, where torch's wrapper cannot.

    ``pytorch_ddp`` reduces while it goes back, when each parameter has had its gradient once after the last forward
    pass. Activation checkpoints give several, one for each pass; a layer that the last pass leaves out has none; and
    a model for each language pair is not called through the wrapper at all. Then the wrapper's own reduction is
    switched off, and the mean is taken where ``legacy_ddp`` takes it: in the trainer's call of ``all_reduce_grads``;
    in half precision if *half* (``--ddp-comm-hook fp16``). The buffers of ``--broadcast-buffers`` are made alike there
    too: the wrapper sends them before forward passes, of which a rank with a dummy batch has fewer than the others.
    """
    wrapper = _torch_wrapper(model)
    if wrapper is None:
        return
    buffers, gradients = wrapper.broadcast_buffers, wrapper.require_backward_grad_sync and _overtaxes(wrapper)
    if not buffers and not gradients:
        return
    at_the_end = cast(Any, vars(model).setdefault("all_reduce_grads", AtTheEnd(wrapper, half)))
    if buffers:
        wrapper.broadcast_buffers, at_the_end.takes_buffers = False, True
    if gradients:
        wrapper.require_backward_grad_sync, at_the_end.takes_gradients = False, True


def _torch_wrapper(model: nn.Module) -> Optional[DistributedDataParallel]:
    while isinstance(model, nn.Module) and not isinstance(model, DistributedDataParallel):
        model = cast(Any, model._modules.get("module"))
    return model


def _overtaxes(wrapper: DistributedDataParallel) -> bool:
    """Whether several passes before one backward pass, or passes beside the wrapper, are more than it can follow."""
    recomputes = any("precheckpoint_forward" in vars(module) for module in wrapper.modules())
    return wrapper.find_unused_parameters or recomputes or isinstance(bare_model(wrapper), FairseqMultiModel)


@torch.no_grad()
def copy_buffers(wrapper: DistributedDataParallel) -> None:
    """Give each rank the first rank's buffers, as ``--broadcast-buffers`` has it."""
    group = wrapper.process_group
    for buffer in wrapper.module.buffers():
        dist.broadcast(buffer, dist.get_global_rank(group, 0), group=group)


@torch.no_grad()
def mean_over_ranks(wrapper: DistributedDataParallel, half: bool = False) -> None:
    """Replace each gradient by its mean over the ranks; a parameter that this rank's passes left out counts as 0."""
    ranks = dist.get_world_size(wrapper.process_group)
    for bucket in buckets([p for p in wrapper.module.parameters() if p.requires_grad]):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        flat = (flat.half() if half else flat).div_(ranks)
        dist.all_reduce(flat, group=wrapper.process_group)
        for parameter, gradient, mean in zip(bucket, gradients, flat.split([p.numel() for p in bucket])):
            parameter.grad = gradient.copy_(mean.view_as(gradient))


def buckets(parameters: List[Any], size: int = _BUCKET) -> Iterator[List[Any]]:
    """*parameters* in order, in groups of one dtype and device and of *size* numbers or a single parameter."""
    group: List[Tensor] = []
    for parameter in parameters:
        fits = sum(p.numel() for p in group) + parameter.numel() <= size
        if group and not (fits and (parameter.dtype, parameter.device) == (group[0].dtype, group[0].device)):
            yield group
            group = []
        group.append(parameter)
    if group:
        yield group
