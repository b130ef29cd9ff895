"""``freelb_label_smoothed``, ``freelb_sentence_prediction``: FreeLB (Zhu et al. 2020)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
from dataclasses import dataclass
from typing import Any, Iterator

from torch import Tensor

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AscentConfig, ascent_of, check_ascent, require
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.methods.freelb import freelb_terms


@dataclass
class FreelbConfig(AscentConfig):
    """The ascent's options; ``--adv-steps`` is the number K of passes."""


@register_method("freelb", FreelbConfig)
class FreelbCriterion(AdversarialCriterion):
    """(1/K) Σ_k CE(x + δᵏ): each backward pass moves δ and adds to the parameters' gradient; one optimizer step."""

    ascends = True

    def __init__(self, cfg: FreelbConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_ascent(cfg)
        rule = "normalised: the gradient comes from the training's backward pass, in the units of its loss scale"
        require(str(cfg.adv_gradient) == "normalised", "--adv-gradient", rule, str(cfg.adv_gradient))
        require(cfg.adv_steps >= 1, "--adv-steps", ">= 1 (FreeLB's K)", cfg.adv_steps)
        rule = "0 (off) or 1: FreeLB's loss has no clean term to weigh against"
        require(cfg.adv_lambda in (0.0, 1.0), "--adv-lambda", rule, cfg.adv_lambda)

    def needs_gradients_between(self) -> bool:
        return self.cfg.adv_steps > 1

    def num_backwards(self) -> int:
        return self.cfg.adv_steps

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        ascent, passes = ascent_of(self.cfg, self.radius(1.0)), batch.passes
        start = ascent.start(passes, stream=self.epoch)
        return freelb_terms(passes, batch.loss, start, ascent.ball, ascent.steps, ascent.step_size, batch.log)
