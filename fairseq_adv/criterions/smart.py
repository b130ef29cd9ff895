"""``smart_label_smoothed``, ``smart_sentence_prediction``: SMART (Jiang et al. 2020)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

from torch import Tensor, nn

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AscentConfig, ascent_of, check_ascent, require
from fairseq_adv.criterions.frame.perturbable import bare_model
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.frame.training_log import norm_log
from fairseq_adv.methods.smart import MomentumTeacher
from fairseq_adv.methods.worst_case import worst_case_perturbation
from fairseq_adv.perturb import Output


@dataclass
class SmartConfig(AscentConfig):
    """SMART's own options: the Bregman proximal point term."""

    smart_bregman: float = field(
        default=0.0, metadata={"help": "weight mu of the divergence from the momentum teacher (0 means off)"}
    )
    smart_momentum: float = field(
        default=0.99, metadata={"help": "momentum beta of the teacher's parameters, for one update"}
    )


@register_method("smart", SmartConfig)
class SmartCriterion(AdversarialCriterion):
    """CE(θ) + λ ℓ_v(x, δ^S, θ) [+ μ ℓ_s(f_θ(x), f_θ̃(x))]: ARCH with a refresh in every update and no cache."""

    ascends = True

    def __init__(self, cfg: SmartConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_ascent(cfg)
        require(cfg.smart_bregman >= 0, "--smart-bregman", ">= 0", cfg.smart_bregman)
        require(0 <= cfg.smart_momentum < 1, "--smart-momentum", "in [0, 1)", cfg.smart_momentum)
        if self.trains_perturbed and cfg.smart_bregman > 0:
            raise ValueError(
                "--adv-objective perturbed: the term of --smart-bregman needs the gradient of the clean pass, which "
                "would not be saved then; set one of them back to its default"
            )
        self.teacher = MomentumTeacher(cfg.smart_momentum) if cfg.smart_bregman > 0 else None

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        super().begin_training(trainer, state)
        if self.teacher is not None:
            self.teacher.parameters = dict((state or {}).get("teacher", {}))

    def checkpoint_state(self) -> Dict[str, Any]:
        if self.teacher is None:
            return {}
        return {"teacher": {name: p.detach().cpu() for name, p in self.teacher.parameters.items()}}

    def keeps(self) -> str:
        return "" if self.teacher is None else "--smart-bregman carries its teacher's parameters by name"

    def begin_pass(self, model: nn.Module) -> None:
        """The teacher follows in each update from the method's start on, also in plain ones and on dummy batches."""
        super().begin_pass(model)
        if self.teacher is not None and self.strength() > 0 and self.start.has_begun(self.update_num):
            self.teacher.follow(bare_model(model), self.update_num)

    def num_backwards(self) -> int:
        """The proximal term flows through the clean output, whose graph must then stay until the end."""
        return super().num_backwards() if self.teacher is None or self.recompute else 1

    def compared_output(self, batch: TrainingBatch) -> Output:
        delta, broken = worst_case_perturbation(
            batch.passes, batch.from_clean(), ascent_of(self.cfg, self.radius(1.0)), stream=self.epoch
        )
        batch.log.update(norm_log(delta), adv_refresh=delta.values[self.sides[0]].size(0), adv_nonfinite=broken.sum())
        return batch.perturbed(delta)

    def further_penalty(self, batch: TrainingBatch) -> Optional[Tensor]:
        """μ/λ · ½[KL(p‖p̃) + KL(p̃‖p)]; divided by λ because λ weighs the whole penalty."""
        if self.teacher is None:
            return None
        teacher = self.teacher.output(batch.bare, batch.bare_pass)
        return self.cfg.smart_bregman / self.strength() * batch.divergence(batch.clean, teacher, "sym-kl")
