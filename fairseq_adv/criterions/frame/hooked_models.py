"""The models that a criterion puts hooks on: what they must be, before the first update, and what it does with them."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from torch import nn

from fairseq_adv.criterions.frame.config import AdversarialConfig
from fairseq_adv.criterions.frame.lifecycle import TrainingLifecycle, refuse_own_backward
from fairseq_adv.criterions.frame.perturbable import bare_model, hook_on, models_inside, refuse_kept_dropout_state
from fairseq_adv.criterions.frame.reduction import reduce_gradients_once, refuse_backend
from fairseq_adv.criterions.frame.rounded_noise import SmallNoise, warn_of_rounding
from fairseq_adv.criterions.heads.head import Head
from fairseq_adv.perturb import EmbeddingHook


class HookedModels(TrainingLifecycle):
    """The half of a criterion that knows its models: one, or one for each language pair."""

    cfg: AdversarialConfig
    task: Any
    head: Head
    sides: Sequence[str]
    concat: bool
    ascends: bool = False  # whether it has passes under the clean pass's dropout masks, whatever --adv-outer-masks says

    def hook_nothing(self) -> None:
        """As long as no model was seen."""
        self._hooks: Dict[int, EmbeddingHook] = {}  # by the model that each holds, which as an attribute here would
        # be the criterion's submodule: part of every checkpoint, and wrapped for distributed training
        self._half_reduction = False

    def strength(self) -> float:
        """The weight of the regulariser; 0 means plain training."""
        raise NotImplementedError

    def may_drive_backward(self) -> bool:
        """Whether :meth:`drives_backward` may be true in some update."""
        raise NotImplementedError

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        """Refuse, before the first update, what the hooks on word embeddings cannot work with."""
        distributed = trainer.cfg.distributed_training
        refuse_backend(str(distributed.ddp_backend))
        self._half_reduction = str(getattr(distributed, "ddp_comm_hook", "none")) == "fp16"
        if self.strength() > 0:
            self._check_model(trainer.get_model())

    def _check_model(self, model: nn.Module) -> None:
        inside = models_inside(model)
        for each in inside:
            self.head.check_model(each)
            self.hook(each)
            warn_of_rounding(each, self.sides, self.small_noises())
            if self.ascends or str(self.cfg.adv_outer_masks) == "shared":
                refuse_kept_dropout_state(each)
        if self.keeps() and inside != [bare_model(model)]:
            raise ValueError(
                f"{self.keeps()} from update to update, which {type(bare_model(model)).__name__} would mix between its "
                "language pairs; choose a method that keeps nothing, such as r3f, vat or disadv, or --task translation"
            )
        if self.may_drive_backward():
            refuse_own_backward(self.task)

    def keeps(self) -> str:
        """What a method keeps by sample or by parameter from one update to the next; empty for nothing."""
        return ""

    def small_noises(self) -> List[SmallNoise]:
        """What a method adds to words that half precision may round away: the start of an ascent that has a size."""
        sigma = getattr(self.cfg, "adv_init_sigma", 0.0)
        return [SmallNoise("the ascent's start", "--adv-init-sigma", sigma, sigma, True)] if sigma > 0 else []

    def begin_pass(self, model: nn.Module) -> None:
        """Every rank, before each micro-batch, whether or not it is regularised."""
        if self.strength() > 0 or self.head.fuses:
            reduce_gradients_once(model, self._half_reduction)

    def other_rows(self) -> str:
        """The option that runs passes over more or fewer rows than a batch has; empty for none."""
        return "--adv-passes concat" if self.concat else "--adv-fraction" if self.cfg.adv_fraction < 1 else ""

    def hook(self, model: nn.Module) -> EmbeddingHook:
        """The hook on *model*'s word embeddings; put on at the first call."""
        bare = bare_model(model)
        if id(bare) not in self._hooks:
            self._hooks[id(bare)] = hook_on(bare, self.pads(), self.other_rows())
        return self._hooks[id(bare)]

    def pads(self) -> Dict[str, int]:
        """The padding index of each perturbed side."""
        pads = self.head.pads()
        return {side: pads[side] for side in self.sides}
