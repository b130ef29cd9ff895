"""What turns a :class:`ForeachOptimizer` into one that fairseq can build from its options."""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Iterable, Type

from fairseq.optim import FairseqOptimizer
from omegaconf import DictConfig
from torch import Tensor

from fairseq_adv.optim.foreach import ForeachOptimizer
from fairseq_adv.optim.param_groups import split_by_shape


class ShapeAwareOptimizer(FairseqOptimizer):
    """Base of the registered optimizers: groups by shape, and exact weights under half precision.

    Subclasses name the torch optimizer and give its keyword arguments as ``optimizer_config``, which
    raises ``ValueError`` where an option is out of range.
    """

    optimizer_class: ClassVar[Type[ForeachOptimizer]]

    def __init__(self, cfg: Any, params: Iterable[Tensor]) -> None:
        super().__init__(cfg)
        config: Dict[str, Any] = self.optimizer_config
        self._optimizer = self.optimizer_class(split_by_shape(params), **config)
        self._optimizer.saves_weights = trains_fp32_copies(cfg)


def trains_fp32_copies(cfg: Any) -> bool:
    """Whether fairseq hands the optimizer fp32 copies of a half-precision model, as its flags say.

    fairseq's checkpoint holds the rounded model only, so the copies must travel with the state.
    """
    common = getattr(cfg._get_root(), "common", None) if isinstance(cfg, DictConfig) else None
    if common is None or common.memory_efficient_fp16 or common.memory_efficient_bf16:
        return False
    return bool(common.fp16 or common.bf16)
