"""``simcut_label_smoothed``, ``simcut_sentence_prediction``: SimCut (Gao et al. 2022)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import math
from dataclasses import dataclass, field
from typing import Any

from fairseq.dataclass import ChoiceEnum

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AdversarialConfig, require
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.losses import DIVERGENCES
from fairseq_adv.methods.simcut import kept_tokens
from fairseq_adv.perturb import Output


@dataclass
class SimcutConfig(AdversarialConfig):
    """SimCut's weight and cutoff; its divergence is KL(p‖q)."""

    simcut_alpha: float = field(default=3.0, metadata={"help": "weight of the divergence (0 means off)"})
    simcut_p: float = field(
        default=0.05, metadata={"help": "probability that a word's embedding is cut off (set to zero) on each side"}
    )
    adv_divergence: ChoiceEnum(list(DIVERGENCES)) = field(  # type: ignore[valid-type]
        default="kl", metadata={"help": "kl: KL(p||q) in nats, as in the paper; sym-kl: the mean of both directions"}
    )


@register_method("simcut", SimcutConfig)
class SimcutCriterion(AdversarialCriterion):
    """CE + α KL(f(x) ‖ f(cutoff(x))), gradient through both outputs (Eq. 6)."""

    def __init__(self, cfg: SimcutConfig, task: Any) -> None:
        super().__init__(cfg, task)
        require(0 <= cfg.simcut_alpha < math.inf, "--simcut-alpha", "finite and >= 0", cfg.simcut_alpha)
        require(0 <= cfg.simcut_p < 1, "--simcut-p", "in [0, 1)", cfg.simcut_p)

    def strength(self) -> float:
        return self.cfg.simcut_alpha * self.cfg.adv_lambda

    def compared_output(self, batch: TrainingBatch) -> Output:
        keep = kept_tokens(batch.passes, self.cfg.simcut_p, self.seed, self.epoch)
        return batch.cut(keep)
