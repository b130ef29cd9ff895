"""LARS: SGD with momentum whose learning rate follows the ratio of weight norm to gradient norm.

You et al. 2017, "Large Batch Training of Convolutional Networks", Eq. 6 and Algorithm 1. For each
parameter tensor w with gradient g and momentum buffer v::

    λ = trust_coefficient · ‖w‖ / (‖g‖ + weight_decay · ‖w‖ + eps)
    v ← momentum · v + lr · λ · (g + weight_decay · w)
    w ← w − v

The learning rate is inside the momentum, as in the paper, so a change of ``lr`` acts smoothly; eps
is ours and guards the division. λ is 1 where ‖w‖ or ‖g‖ is 0 and for excluded tensors.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import register_optimizer
from omegaconf import II
from torch import Tensor

from fairseq_adv.optim.base import ShapeAwareOptimizer
from fairseq_adv.optim.foreach import ForeachOptimizer, add_scaled_, norms
from fairseq_adv.optim.param_groups import check_at_least_zero, first_lr


class Lars(ForeachOptimizer):
    """LARS on torch's foreach kernels."""

    state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "trust_coefficient": trust_coefficient, "eps": eps})

    def update(self, group: Dict[str, Any], weights: List[Tensor], grads: List[Tensor], states: List[Dict]) -> None:
        """One step, see :meth:`ForeachOptimizer.update`."""
        buffers = [state["momentum_buffer"] for state in states]
        decay = 0.0 if group["excluded"] else group["weight_decay"]
        decayed = self.scratch_like(weights)
        for out, grad, weight in zip(decayed, grads, weights):
            torch.add(grad, weight, alpha=decay, out=out)
        torch._foreach_mul_(buffers, group["momentum"])
        add_scaled_(buffers, decayed, group["lr"] * _local_rates(group, weights, grads))
        torch._foreach_sub_(weights, buffers)


def _local_rates(group: Dict[str, Any], weights: List[Tensor], grads: List[Tensor]) -> Tensor:
    """λ of each tensor, as one vector on their device."""
    if group["excluded"]:
        return torch.ones(len(weights), device=weights[0].device)
    weight_norms, grad_norms = norms(weights), norms(grads)
    denominators = grad_norms + group["weight_decay"] * weight_norms + group["eps"]
    defined = (weight_norms > 0) & (grad_norms > 0)
    rates = group["trust_coefficient"] * weight_norms / denominators
    return torch.where(defined, rates, torch.ones_like(rates))


@dataclass
class AdvLarsConfig(FairseqDataclass):
    """Options of ``--optimizer adv_lars``."""

    lars_momentum: float = field(default=0.9, metadata={"help": "momentum, default 0.9; 0 means off"})
    lars_weight_decay: float = field(
        default=5e-4, metadata={"help": "weight decay, not on biases and LayerNorm; default 0.0005, 0 means off"}
    )
    lars_trust_coefficient: float = field(
        default=1e-3, metadata={"help": "length of a step relative to the weights at lr 1, default 0.001"}
    )
    lars_eps: float = field(default=1e-8, metadata={"help": "added to the denominator of the ratio, default 1e-8"})
    lr: List[float] = field(default=II("optimization.lr"))


@register_optimizer("adv_lars", dataclass=AdvLarsConfig)
class AdvLars(ShapeAwareOptimizer):
    """:class:`Lars` as a fairseq optimizer."""

    optimizer_class = Lars

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """Keyword arguments of :class:`Lars`; ``ValueError`` where an option is out of range."""
        cfg = self.cfg
        check_at_least_zero(lars_weight_decay=cfg.lars_weight_decay, lars_eps=cfg.lars_eps)
        if not 0 <= cfg.lars_momentum < 1:
            raise ValueError(f"--lars-momentum must lie in [0, 1), got {cfg.lars_momentum}")
        if not cfg.lars_trust_coefficient > 0:
            raise ValueError(f"--lars-trust-coefficient must be > 0, got {cfg.lars_trust_coefficient}")
        return {
            "lr": first_lr(cfg.lr),
            "momentum": cfg.lars_momentum,
            "weight_decay": cfg.lars_weight_decay,
            "trust_coefficient": cfg.lars_trust_coefficient,
            "eps": cfg.lars_eps,
        }
