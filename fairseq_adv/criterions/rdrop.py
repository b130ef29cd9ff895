"""``rdrop_label_smoothed``, ``rdrop_sentence_prediction``: R-Drop (Liang et al. 2021)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import math
from dataclasses import dataclass, field, replace
from typing import Any, Iterator

from torch import Tensor

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AdversarialConfig, require
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.heads.head import LossWeights


@dataclass
class RdropConfig(AdversarialConfig):
    """R-Drop's weight."""

    rdrop_alpha: float = field(
        default=5.0,
        metadata={"help": "weight of the divergence between two passes with different dropout (0 means off)"},
    )


@register_method("rdrop", RdropConfig)
class RdropCriterion(AdversarialCriterion):
    """CE₁ + CE₂ + α ½[KL(p‖q) + KL(q‖p)] over two dropout passes of the same input (Eq. 4); no perturbation.

    The cross-entropies are summed, as in the paper: the gradient is twice plain training's.
    """

    def __init__(self, cfg: RdropConfig, task: Any) -> None:
        super().__init__(cfg, task)
        require(0 <= cfg.rdrop_alpha < math.inf, "--rdrop-alpha", "finite and >= 0", cfg.rdrop_alpha)

    def strength(self) -> float:
        return self.cfg.rdrop_alpha * self.cfg.adv_lambda

    def num_backwards(self) -> int:
        return 2 if self.recompute else 1

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        batch = self.part_of(batch)
        second = batch.perturbed(batch.passes.zero())
        weights = LossWeights(clean=1.0, perturbed=1.0, divergence=self.strength())
        joint = batch.joint_loss(second, weights)
        batch.log["adv_loss"] = joint.divergence
        if self.recompute:
            yield from self._recomputed_terms(batch, joint.total, replace(weights, clean=0.0))
        else:
            yield joint.total
