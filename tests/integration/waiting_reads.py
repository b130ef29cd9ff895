"""Finding, without a GPU, where an update would wait for one: reads of tensors that Python or a shape depends on."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from typing import Any, Iterator, Optional, Tuple
from typing import Counter as Counts

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Read = Tuple[str, str]  # where ("perturb/rng.py reseed_from_state") and what ("_local_scalar_dense")

_ALWAYS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique", "_unique2", "unique_dim"),
    "unique_consecutive",
}
_TO_HOST = {torch.Tensor.cpu: "cpu", torch.Tensor.tolist: "tolist", torch.Tensor.numpy: "numpy"}


def kind_of_operator(func: Any, args: Any, kwargs: Any) -> Optional[str]:
    """The name under which an operator counts as a read; ``None`` for one that waits for nothing."""
    name = func.overloadpacket.__name__
    if name in _ALWAYS:
        return name
    if name in ("index", "index_put", "index_put_") and any(
        index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    ):
        return "boolean indexing"
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return name
    return None


def kind_of_call(func: Any, args: Any, kwargs: Any) -> Optional[str]:
    """The same of a call in Python: copies to the host, and from its pageable memory to a named device."""
    if func in _TO_HOST:
        return _TO_HOST[func]
    if func is torch.Tensor.to and "cpu" in [str(arg) for arg in (*args[1:], *kwargs.values()) if not _is_device(arg)]:
        return "to('cpu')"
    if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
        return "tensor(…, device=…)"
    return None


def _is_device(arg: Any) -> bool:
    """A device that is a variable is the model's, which here happens to be the CPU."""
    return isinstance(arg, torch.device) or torch.is_tensor(arg)


def place() -> str:
    """The innermost function of fairseq or of this package on the stack; not the one that only turns it to a number."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename.replace("\\", "/")
        for package in ("/fairseq_adv/", "/fairseq/"):
            inner = frame.f_code.co_name.startswith("<")  # a comprehension or a lambda
            if package in path and not inner and not (package == "/fairseq/" and path.endswith("fairseq/utils.py")):
                own = "" if package == "/fairseq_adv/" else "fairseq/"
                return f"{own}{path.rsplit(package, 1)[1]} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


class _Operators(TorchDispatchMode):
    def __init__(self, reads: Counts[Read]) -> None:
        super().__init__()
        self._reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = kind_of_operator(func, args, kwargs or {})
        if kind is not None:
            self._reads[place(), kind] += 1
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, reads: Counts[Read]) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = kind_of_call(func, args, kwargs or {})
        if kind is not None:
            self._reads[place(), kind] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_reads() -> Iterator[Counts[Read]]:
    """Count the reads of this thread inside the block."""
    reads: Counts[Read] = Counter()
    with _Calls(reads), _Operators(reads):
        yield reads
