"""``vat_label_smoothed``, ``vat_sentence_prediction``: virtual adversarial training (Sato et al. 2019)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import math
from dataclasses import dataclass, field
from typing import Any

from fairseq.dataclass import ChoiceEnum

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AdversarialConfig, require
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.frame.training_log import norm_log
from fairseq_adv.losses import DIVERGENCES
from fairseq_adv.methods.vat import virtual_adversarial_perturbation
from fairseq_adv.perturb import Output


@dataclass
class VatConfig(AdversarialConfig):
    """VAT's radius; its divergence is KL(p‖q)."""

    vat_eps: float = field(
        default=1.0, metadata={"help": "norm of a sentence's perturbation, in units of the raw word embeddings"}
    )
    adv_divergence: ChoiceEnum(list(DIVERGENCES)) = field(  # type: ignore[valid-type]
        default="kl", metadata={"help": "kl: KL(p||q) in nats, as in the paper; sym-kl: the mean of both directions"}
    )


@register_method("vat", VatConfig)
class VatCriterion(AdversarialCriterion):
    """CE + λ KL(p‖q), q at x + ε g/‖g‖, g the divergence's gradient at a random perturbation of unit norm."""

    ascends = True

    def __init__(self, cfg: VatConfig, task: Any) -> None:
        super().__init__(cfg, task)
        require(0 <= cfg.vat_eps < math.inf, "--vat-eps", "finite and >= 0", cfg.vat_eps)

    def compared_output(self, batch: TrainingBatch) -> Output:
        delta, broken = virtual_adversarial_perturbation(
            batch.passes,
            batch.from_clean(),
            epsilon=self.radius(self.cfg.vat_eps),
            seed=self.seed,
            stream=self.epoch,
        )
        batch.log.update(norm_log(delta), adv_nonfinite=broken.sum())
        return batch.perturbed(delta)
