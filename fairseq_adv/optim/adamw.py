"""AdamW on torch's fused kernel, with biases and LayerNorm kept out of the decay.

Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", Algorithm 2. With m̂ and v̂ the
bias-corrected moments::

    x ← x − lr · weight_decay · x − lr · m̂ / (√v̂ + eps)

fairseq's own ``adam`` computes the same up to the place of eps (it adds it before the correction of
v) and is fused only with apex on CUDA.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.optim import register_optimizer
from omegaconf import II
from torch import Tensor
from torch.optim.adamw import adamw

from fairseq_adv.optim.base import ShapeAwareOptimizer
from fairseq_adv.optim.foreach import ForeachOptimizer, fused_supported, step_tensors
from fairseq_adv.optim.param_groups import check_at_least_zero, first_lr, parse_betas


def adam_(
    group: Dict[str, Any],
    outputs: List[Tensor],
    grads: List[Tensor],
    states: List[Dict],
    steps: List[Tensor],
    lr: float,
    weight_decay: float,
) -> None:
    """``outputs[i] ← (1 − lr · weight_decay) outputs[i] − lr · m̂ / (√v̂ + eps)``, moments updated in *states*."""
    fused = fused_supported(outputs[0].device)
    adamw(
        outputs,
        grads,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        steps,
        fused=fused,
        foreach=not fused,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=lr,
        weight_decay=weight_decay,
        eps=group["eps"],
        maximize=False,
    )


class AdamW(ForeachOptimizer):
    """AdamW on the kernel of ``torch.optim.AdamW(fused=True)``, foreach where there is none."""

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @property
    def supports_flat_params(self) -> bool:
        """Only without decay: in one flat vector nobody could tell a bias from a matrix."""
        return all(group["weight_decay"] == 0 for group in self.param_groups)

    def update(self, group: Dict[str, Any], weights: List[Tensor], grads: List[Tensor], states: List[Dict]) -> None:
        """One step, see :meth:`ForeachOptimizer.update`."""
        decay = 0.0 if group["excluded"] else group["weight_decay"]
        steps = step_tensors(states, weights[0].device)
        adam_(group, weights, grads, states, steps, lr=group["lr"], weight_decay=decay)


@dataclass
class AdvAdamWConfig(FairseqDataclass):
    """Options of ``--optimizer adv_adamw``."""

    adamw_betas: Any = field(
        default="(0.9, 0.999)", metadata={"help": "decay of the first and second moment, default (0.9, 0.999)"}
    )
    adamw_eps: float = field(default=1e-8, metadata={"help": "added to the root of the second moment, default 1e-8"})
    adamw_weight_decay: float = field(
        default=0.0, metadata={"help": "weight decay, not on biases and LayerNorm; default 0 means off"}
    )
    lr: List[float] = field(default=II("optimization.lr"))


@register_optimizer("adv_adamw", dataclass=AdvAdamWConfig)
class AdvAdamW(ShapeAwareOptimizer):
    """:class:`AdamW` as a fairseq optimizer."""

    optimizer_class = AdamW

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """Keyword arguments of :class:`AdamW`; ``ValueError`` where an option is out of range."""
        cfg = self.cfg
        check_at_least_zero(adamw_eps=cfg.adamw_eps, adamw_weight_decay=cfg.adamw_weight_decay)
        return {
            "lr": first_lr(cfg.lr),
            "betas": parse_betas(cfg.adamw_betas, "--adamw-betas"),
            "eps": cfg.adamw_eps,
            "weight_decay": cfg.adamw_weight_decay,
        }
