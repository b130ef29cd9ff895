"""``--criterion plain_label_smoothed``: fairseq's label-smoothed cross-entropy, with less memory and time."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from fairseq_adv.criterions.frame.lifecycle import TrainingLifecycle, attach
from fairseq_adv.criterions.frame.reduction import reduce_gradients_once, refuse_backend
from fairseq_adv.criterions.heads.translation import VOCABULARIES, VOCABULARY_HELP, TranslationConfig, TranslationHead


@dataclass
class PlainConfig(TranslationConfig):
    """fairseq's own options; the vocabulary is fused unless another way is asked for."""

    adv_vocabulary: ChoiceEnum(list(VOCABULARIES)) = field(  # type: ignore[valid-type]
        default="fused", metadata={"help": VOCABULARY_HELP}
    )


@register_criterion("plain_label_smoothed", dataclass=PlainConfig)
class PlainCriterion(TrainingLifecycle, LabelSmoothedCrossEntropyCriterion):
    """Plain training without the logits of a whole batch; in evaluation it is fairseq's own criterion, bit for bit."""

    def __init__(self, cfg: PlainConfig, task: Any) -> None:
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        self.head = TranslationHead(cfg, task)
        self._half_reduction = False
        attach(task, self)

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        """Refuse a wrapper that the projection, which runs outside of it, cannot work with."""
        distributed = trainer.cfg.distributed_training
        if self.head.fuses:
            refuse_backend(str(distributed.ddp_backend))
        self._half_reduction = str(getattr(distributed, "ddp_comm_hook", "none")) == "fp16"

    def begin_pass(self, model: nn.Module) -> None:
        """A wrapper that looks for unused parameters in the features would take the projection for one."""
        if self.head.fuses:
            reduce_gradients_once(model, self._half_reduction)

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Any, Dict[str, Any]]:
        """Loss, sample size and log, key for key fairseq's."""
        if model.training:
            return self.head.plain_update(model, sample, reduce=reduce)
        return super().forward(model, sample, reduce=reduce)
