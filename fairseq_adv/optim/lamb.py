"""LAMB: Adam whose step on every matrix has the length of that matrix (times the learning rate).

You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
Algorithm 2. With m̂ and v̂ Adam's bias-corrected moments, for each parameter tensor x::

    u = m̂ / (√v̂ + eps) + weight_decay · x
    x ← x − lr · φ(‖x‖) / ‖u‖ · u          φ(z) = min(z, max_weight_norm)

The ratio is 1 where either norm is 0. Excluded tensors (biases, LayerNorm) take plain Adam's step.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Tuple

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import register_optimizer
from omegaconf import II
from torch import Tensor

from fairseq_adv.optim.adamw import adam_
from fairseq_adv.optim.base import ShapeAwareOptimizer
from fairseq_adv.optim.foreach import ForeachOptimizer, add_scaled_, norms, step_tensors
from fairseq_adv.optim.param_groups import check_at_least_zero, first_lr, parse_betas


class Lamb(ForeachOptimizer):
    """LAMB on torch's fused Adam kernel (foreach where there is none).

    ``max_weight_norm`` bounds φ and ``max_trust_ratio`` the whole ratio; 0 leaves either unbounded.
    ``bias_correction=False`` gives the variant of the paper's first versions.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_weight_norm: float = 0.0,
        max_trust_ratio: float = 0.0,
        bias_correction: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        defaults.update(
            max_weight_norm=max_weight_norm, max_trust_ratio=max_trust_ratio, bias_correction=bias_correction
        )
        super().__init__(params, defaults)

    def update(self, group: Dict[str, Any], weights: List[Tensor], grads: List[Tensor], states: List[Dict]) -> None:
        """One step, see :meth:`ForeachOptimizer.update`."""
        if group["excluded"]:
            self._adam_(group, weights, grads, states, lr=group["lr"])
            return
        # Adam with lr 1, started from −weight_decay·x instead of x, leaves −u: one pass over memory.
        minus_u = self.scratch_like(weights)
        for out, weight in zip(minus_u, weights):
            torch.mul(weight, -group["weight_decay"], out=out)
        self._adam_(group, minus_u, grads, states, lr=1.0)
        add_scaled_(weights, minus_u, group["lr"] * _trust_ratios(group, norms(weights), norms(minus_u)))

    @staticmethod
    def _adam_(
        group: Dict[str, Any], outputs: List[Tensor], grads: List[Tensor], states: List[Dict], lr: float
    ) -> None:
        steps = step_tensors(states, outputs[0].device)
        if not group["bias_correction"]:
            steps = [torch.full_like(step, float("inf")) for step in steps]  # beta ** inf == 0: nothing to correct
        adam_(group, outputs, grads, states, steps, lr=lr, weight_decay=0.0)


def _trust_ratios(group: Dict[str, Any], weight_norms: Tensor, update_norms: Tensor) -> Tensor:
    """φ(‖x‖) / ‖u‖ for each tensor, 1 where either norm is 0."""
    defined = (weight_norms > 0) & (update_norms > 0)
    if group["max_weight_norm"] > 0:
        weight_norms = weight_norms.clamp(max=group["max_weight_norm"])
    ratios = torch.where(defined, weight_norms / update_norms, torch.ones_like(weight_norms))
    return ratios.clamp(max=group["max_trust_ratio"]) if group["max_trust_ratio"] > 0 else ratios


@dataclass
class AdvLambConfig(FairseqDataclass):
    """Options of ``--optimizer adv_lamb``."""

    lamb_betas: Any = field(
        default="(0.9, 0.999)", metadata={"help": "decay of the first and second moment, default (0.9, 0.999)"}
    )
    lamb_eps: float = field(default=1e-6, metadata={"help": "added to the root of the second moment, default 1e-6"})
    lamb_weight_decay: float = field(
        default=0.01, metadata={"help": "weight decay, not on biases and LayerNorm; default 0.01, 0 means off"}
    )
    lamb_max_weight_norm: float = field(
        default=0.0, metadata={"help": "upper bound of the weight norm in the trust ratio; default 0 means off"}
    )
    lamb_max_trust_ratio: float = field(
        default=0.0, metadata={"help": "upper bound of the trust ratio; default 0 means off"}
    )
    lamb_no_bias_correction: bool = field(
        default=False, metadata={"help": "leave Adam's moments uncorrected, as the paper's first versions did"}
    )
    lr: List[float] = field(default=II("optimization.lr"))


@register_optimizer("adv_lamb", dataclass=AdvLambConfig)
class AdvLamb(ShapeAwareOptimizer):
    """:class:`Lamb` as a fairseq optimizer."""

    optimizer_class = Lamb

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """Keyword arguments of :class:`Lamb`; ``ValueError`` where an option is out of range."""
        cfg = self.cfg
        check_at_least_zero(
            lamb_eps=cfg.lamb_eps,
            lamb_weight_decay=cfg.lamb_weight_decay,
            lamb_max_weight_norm=cfg.lamb_max_weight_norm,
            lamb_max_trust_ratio=cfg.lamb_max_trust_ratio,
        )
        return {
            "lr": first_lr(cfg.lr),
            "betas": parse_betas(cfg.lamb_betas, "--lamb-betas"),
            "eps": cfg.lamb_eps,
            "weight_decay": cfg.lamb_weight_decay,
            "max_weight_norm": cfg.lamb_max_weight_norm,
            "max_trust_ratio": cfg.lamb_max_trust_ratio,
            "bias_correction": not cfg.lamb_no_bias_correction,
        }
