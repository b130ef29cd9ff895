"""What LAMB, LARS and AdamW share: stepping over lists of tensors, fp32 arithmetic, saved state.

An optimizer of this package sees its parameters in *chunks*, lists of tensors of one device and one
dtype that are short enough for the temporaries to stay small, and updates a chunk with torch's
fused or foreach kernels. Parameters of half precision (or of a strided layout) are lent to the
update as fp32 copies and written back afterwards; state is fp32 always and survives saving and
loading unrounded.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import torch
from torch import Tensor

# Elements of the temporaries of one chunk: on CPU what a cache holds, elsewhere 256 MiB of fp32.
_CHUNK_CPU, _CHUNK_DEVICE = 2**20, 2**26

_WEIGHT = "fp32_weight"
_fused_devices: Dict[str, bool] = {}


class ForeachOptimizer(torch.optim.Optimizer):
    """Base class: subclasses name their state and implement :meth:`update`.

    Groups carry ``excluded``: their weight decay is 0 and their trust ratio 1, whatever a checkpoint
    or ``--optimizer-overrides`` says. The step count is an ``int`` per parameter, so that a
    checkpoint moves between devices and between fused and foreach kernels.
    """

    #: names of the fp32 tensors kept for each parameter
    state_names: Tuple[str, ...] = ()

    #: keep the weights themselves in the state: for fp32 copies of a model that is saved rounded
    saves_weights = False

    # read by fairseq
    supports_memory_efficient_fp16 = True
    disable_mem_eff_fp16_loading_hack = True  # load_state_dict below keeps fp32, and the device

    def __init__(self, params: Iterable, defaults: Dict[str, Any]) -> None:
        super().__init__(params, {**defaults, "excluded": False})
        self._scratch = torch.empty(0)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        """Restore a pickled or copied optimizer; the scratch buffer does not travel."""
        super().__setstate__(state)
        self._scratch = torch.empty(0)

    @property
    def supports_flat_params(self) -> bool:
        """Whether one vector may stand for all parameters; no, since shapes decide who is excluded."""
        return False

    def update(self, group: Dict[str, Any], weights: List[Tensor], grads: List[Tensor], states: List[Dict]) -> None:
        """Update ``weights`` (fp32) and ``states`` in place; ``grads`` are fp32 and only read."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Optional[Callable] = None) -> Optional[float]:  # type: ignore[override]
        """Update every parameter that has a gradient; raise ``ValueError`` on a sparse one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in chunks([p for p in group["params"] if p.grad is not None]):
                self._step_chunk(group, params)
        return loss

    def _step_chunk(self, group: Dict[str, Any], params: List[Tensor]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        if any(grad.is_sparse for grad in grads):
            raise ValueError(f"{type(self).__name__} needs dense gradients: build the embedding with sparse=False")
        grads = [_fp32_contiguous(grad) for grad in grads]
        weights = [_fp32_contiguous(param) for param in params]
        self.update(group, weights, grads, [self._state_of(p) for p in params])
        for param, weight in zip(params, weights):
            if weight is not param:
                param.copy_(weight)

    def _state_of(self, param: Tensor) -> Dict[str, Any]:
        """The state of ``param``, created on its first step, with the step counted."""
        state = self.state[param]
        if not state:
            state["step"] = 0
            for name in self.state_names:
                state[name] = torch.zeros(param.shape, dtype=torch.float32, device=param.device)
        state["step"] += 1
        if self.saves_weights:
            state[_WEIGHT] = param.detach()  # shares memory with the parameter
        return state

    def scratch_like(self, tensors: List[Tensor]) -> List[Tensor]:
        """Uninitialised fp32 tensors of these shapes, valid until the next call.

        On CPU one buffer is kept and reused, since faulting in fresh pages costs more than the
        arithmetic; elsewhere torch's caching allocator serves and nothing is held between steps.
        """
        total, device = sum(t.numel() for t in tensors), tensors[0].device
        buffer = self._scratch
        if device.type != "cpu":
            buffer = torch.empty(total, device=device)
        elif buffer.numel() < total:
            buffer = self._scratch = torch.empty(total)
        pieces = buffer[:total].split([t.numel() for t in tensors])
        return [piece.view(t.shape) for piece, t in zip(pieces, tensors)]

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load as torch does, but keep fp32 state beside parameters of half precision.

        Weights that were saved with the state replace those that are their rounded form.
        """
        super().load_state_dict(state_dict)
        saved = itertools.chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = itertools.chain.from_iterable(group["params"] for group in self.param_groups)
        for key, param in zip(saved, params):
            if key in state_dict["state"]:
                self._restore(param, state_dict["state"][key])

    def _restore(self, param: Tensor, saved: Dict[str, Any]) -> None:
        state = self.state[param]
        for name in self.state_names:
            state[name] = saved[name].to(device=param.device, dtype=torch.float32, copy=True)
        if state.pop(_WEIGHT, None) is not None and param.dtype == torch.float32:
            _unround_(param, saved[_WEIGHT].to(param.device))


@torch.no_grad()
def _unround_(param: Tensor, exact: Tensor) -> None:
    """Give ``param`` the exact weights where it holds them rounded; averaged or edited weights stay."""
    rounded = (exact.half().float() == param) | (exact.bfloat16().float() == param)
    param.copy_(torch.where(rounded, exact, param))


def _fp32_contiguous(tensor: Tensor) -> Tensor:
    """``tensor`` itself, or a copy if the kernels could not work on it in place."""
    return tensor if tensor.dtype == torch.float32 and tensor.is_contiguous() else tensor.float().contiguous()


def chunks(params: List[Tensor]) -> Iterator[List[Tensor]]:
    """Split ``params``, in order, into lists of one device and dtype and of bounded size."""
    for (device, _), run in itertools.groupby(params, key=lambda p: (p.device, p.dtype)):
        limit = _CHUNK_CPU if device.type == "cpu" else _CHUNK_DEVICE
        chunk: List[Tensor] = []
        size = 0
        for param in run:
            if chunk and size + param.numel() > limit:
                yield chunk
                chunk, size = [], 0
            chunk.append(param)
            size += param.numel()
        yield chunk


def norms(tensors: List[Tensor]) -> Tensor:
    """ℓ2 norm of each fp32 tensor, as one vector on their device."""
    if tensors[0].device.type != "cpu":
        return torch.stack(torch._foreach_norm(tensors))
    return torch.stack([_cpu_norm(t) for t in tensors])


def _cpu_norm(tensor: Tensor) -> Tensor:
    """ℓ2 norm in two stages: torch's CPU kernel loses 3 digits on an embedding matrix in one."""
    block = math.gcd(tensor.numel(), 4096)
    if block < 64:
        return torch.linalg.vector_norm(tensor, dtype=torch.float64).float()
    return torch.linalg.vector_norm(torch.linalg.vector_norm(tensor.reshape(-1, block), dim=1))


def add_scaled_(targets: List[Tensor], updates: List[Tensor], scales: Tensor) -> None:
    """``targets[i] += scales[i] * updates[i]`` without a device synchronisation; ``updates`` are spent."""
    if targets[0].device.type == "cpu":
        for target, update, scale in zip(targets, updates, scales.tolist()):
            target.add_(update, alpha=scale)
        return
    torch._foreach_mul_(updates, list(scales.unbind()))
    torch._foreach_add_(targets, updates)


def step_tensors(states: List[Dict[str, Any]], device: torch.device) -> List[Tensor]:
    """Step counts *before* this step, as the fp32 scalars that torch's functional Adam increments."""
    counts = torch.tensor([float(state["step"] - 1) for state in states])
    return list(counts.to(device if fused_supported(device) else "cpu").unbind())


def fused_supported(device: torch.device) -> bool:
    """Whether this torch has a fused Adam for ``device`` (CUDA since 2.0, CPU since 2.4)."""
    if device.type not in _fused_devices:
        try:
            torch.optim.AdamW([torch.zeros(1, device=device)], fused=True)
            _fused_devices[device.type] = True
        except (RuntimeError, ValueError):
            _fused_devices[device.type] = False
    return _fused_devices[device.type]
