"""``disadv_label_smoothed``, ``disadv_sentence_prediction``: adversarial training with one fresh step.

DisAdv is the baseline of "Concurrent Adversarial Learning for Large-Batch Training" (Liu et al. 2022).
"""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import math
from dataclasses import dataclass, field
from typing import Any, Iterator

from torch import Tensor

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AdversarialConfig, require
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.frame.training_log import norm_log
from fairseq_adv.methods.freelb import gradient_left_on, leaf_of
from fairseq_adv.perturb import Ball


@dataclass
class DisadvConfig(AdversarialConfig):
    """DisAdv's radius."""

    disadv_alpha: float = field(
        default=0.1, metadata={"help": "norm of a sentence's perturbation, in units of the raw word embeddings"}
    )


@register_method("disadv", DisadvConfig)
class DisadvCriterion(AdversarialCriterion):
    """½[CE(x) + CE(x + δ)], δ = α g/‖g‖ with g from the clean pass's own backward pass, local to the rank."""

    def __init__(self, cfg: DisadvConfig, task: Any) -> None:
        super().__init__(cfg, task)
        require(0 <= cfg.disadv_alpha < math.inf, "--disadv-alpha", "finite and >= 0", cfg.disadv_alpha)
        rule = "0 (off) or 1: both halves of DisAdv's loss weigh the same"
        require(cfg.adv_lambda in (0.0, 1.0), "--adv-lambda", rule, cfg.adv_lambda)

    def needs_gradients_between(self) -> bool:
        return True

    def num_backwards(self) -> int:
        return 2

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        leaf = leaf_of(batch.passes.zero())
        yield 0.5 * batch.loss(batch.passes.clean(leaf))
        gradient, broken = gradient_left_on(leaf)
        ball = Ball(self.radius(self.cfg.disadv_alpha))
        delta = gradient.map(lambda g, mask: ball.scaled_to(g, mask, ball.epsilon))
        adversarial = batch.loss(batch.passes.perturbed(delta))
        batch.log.update(norm_log(delta), adv_nonfinite=broken.sum(), adv_loss=adversarial.data)
        yield 0.5 * adversarial
