"""``r3f_label_smoothed``, ``r3f_sentence_prediction``: R3F (Aghajanyan et al. 2021)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import math
from dataclasses import dataclass, field
from typing import Any, List

from fairseq.dataclass import ChoiceEnum

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AdversarialConfig, require
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.frame.rounded_noise import SmallNoise
from fairseq_adv.criterions.frame.training_log import norm_log
from fairseq_adv.methods.r3f import noise_perturbation
from fairseq_adv.perturb import Output


@dataclass
class R3fConfig(AdversarialConfig):
    """R3F's noise."""

    r3f_noise: ChoiceEnum(["normal", "uniform"]) = field(  # type: ignore[valid-type]
        default="normal", metadata={"help": "distribution of the noise: N(0, sigma^2) or U(-sigma, sigma)"}
    )
    r3f_sigma: float = field(
        default=1e-5, metadata={"help": "size of the noise for each coordinate, in units of the raw word embeddings"}
    )


@register_method("r3f", R3fConfig)
class R3fCriterion(AdversarialCriterion):
    """CE + λ [KL(p‖q) + KL(q‖p)], q at x + noise (Eq. 6): two forward passes, one backward pass."""

    def __init__(self, cfg: R3fConfig, task: Any) -> None:
        super().__init__(cfg, task)
        require(0 <= cfg.r3f_sigma < math.inf, "--r3f-sigma", "finite and >= 0", cfg.r3f_sigma)

    def small_noises(self) -> List[SmallNoise]:
        sigma = self.cfg.r3f_sigma
        return [SmallNoise("the noise", "--r3f-sigma", sigma, sigma, True)] if sigma > 0 else []

    def compared_output(self, batch: TrainingBatch) -> Output:
        cfg = self.cfg
        sigma = self.radius(cfg.r3f_sigma)
        delta = noise_perturbation(batch.passes, str(cfg.r3f_noise), sigma, self.seed, self.epoch)
        batch.log.update(norm_log(delta))
        return batch.perturbed(delta)

    def divergence_factor(self) -> float:
        """The paper adds the two directions, sym-kl is their mean."""
        return 2.0 if str(self.cfg.adv_divergence) == "sym-kl" and self.head.has_directions else 1.0
