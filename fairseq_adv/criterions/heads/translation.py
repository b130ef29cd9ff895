"""Translation: a distribution over words for each target token, and label-smoothed cross-entropy."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import logging
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Set, Union

import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
    label_smoothed_nll_loss,
)
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from fairseq_adv.criterions.frame.perturbable import bare_model
from fairseq_adv.criterions.heads.head import Head, JointLoss, LossWeights, Targets, doubled_input
from fairseq_adv.criterions.heads.projection import plain_projection
from fairseq_adv.losses import FusedLoss, HeldLogits, LossTerms, Projected, fused_loss, masked_divergence

logger = logging.getLogger(__name__)

Words = Union[Tensor, Projected]

VOCABULARIES = ("full", "fused")
VOCABULARY_HELP = (
    "full: all logits at once, as fairseq does; fused: in training, projection onto the vocabulary, cross-entropy and "
    "divergence in one, in chunks of tokens (less memory and time, the same gradients up to rounding), where the "
    "model's last layer is a plain projection of its features"
)
TOKENS = {"src": "src_tokens", "tgt": "prev_output_tokens"}


@dataclass
class TranslationConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """The options of fairseq's own criterion, and how the loss is made of the decoder's features."""

    adv_vocabulary: ChoiceEnum(list(VOCABULARIES)) = field(  # type: ignore[valid-type]
        default="full", metadata={"help": VOCABULARY_HELP}
    )


class TranslationHead(Head):
    """Outputs are log-probs ``N x V``, N = B·T with padding; divergences are summed over target tokens, in nats.

    Where the head fuses and the model can, they are features ``N x D`` with the projection that would make logits.
    """

    suffix = "label_smoothed"
    options = TranslationConfig
    sides = ("src", "tgt")
    own_task = "adversarial_translation"

    def __init__(self, cfg: Any, task: Any) -> None:
        self.plain = LabelSmoothedCrossEntropyCriterion(
            task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy
        )
        self.fuses = str(cfg.adv_vocabulary) == "fused"
        self._told: Set[str] = set()
        self._dictionaries = {"src": task.source_dictionary, "tgt": task.target_dictionary}

    def pads(self) -> Dict[str, int]:
        return {side: dictionary.pad() for side, dictionary in self._dictionaries.items()}

    def tokens(self, sample: Dict[str, Any], side: str) -> Tensor:
        return sample["net_input"][TOKENS[side]]

    def forward(self, model: nn.Module, sample: Dict[str, Any]) -> Words:
        projection = self._projection(model)
        if projection is None:
            net_output = model(**sample["net_input"])
            return self.plain.get_lprobs_and_target(model, net_output, sample)[0]
        features = model(**sample["net_input"], features_only=True)[0][:, self.plain.ignore_prefix_size :]
        output = Projected(features.reshape(-1, features.size(-1)), projection.weight, projection.bias)
        return output if torch.is_grad_enabled() else output.detach()

    def _projection(self, model: nn.Module) -> Optional[nn.Linear]:
        """The layer to be fused with the losses, if it shall and can be; what cannot is told once."""
        if not self.fuses:
            return None
        layer, reason = plain_projection(bare_model(model))
        if layer is None and reason not in self._told:
            self._told.add(reason)
            logger.info("--adv-vocabulary fused changes nothing: %s, so all logits are made at once", reason)
        return layer

    def for_input_alone(self, output: Words) -> Words:
        return output.with_fixed_projection() if isinstance(output, Projected) else output

    def held(self, output: Words) -> Union[Tensor, HeldLogits]:
        return output.hold_logits() if isinstance(output, Projected) else output.detach()

    def plain_update(self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True) -> Any:
        if not reduce or self._projection(model) is None:
            return self.plain(model, sample, reduce=reduce)
        columns: Dict[str, Any] = {}
        loss = self.loss(self.forward(model, sample), self.targets(sample), columns)
        return loss, self.sample_size(sample), self.training_log(sample, loss, columns)

    def doubled(self, sample: Dict[str, Any]) -> Dict[str, Any]:
        return {"net_input": doubled_input(sample), "target": torch.cat([sample["target"], sample["target"]])}

    def check_model(self, model: nn.Module) -> None:
        """Every model of a translation task will do."""

    def targets(self, sample: Dict[str, Any]) -> Targets:
        values = sample["target"][:, self.plain.ignore_prefix_size :].reshape(-1)  # N, padding included
        return Targets(values, values.ne(self.plain.padding_idx))

    def loss(self, output: Words, targets: Targets, log: Dict[str, Any]) -> Tensor:
        if isinstance(output, Projected):
            return self._fused(output, None, targets, self._terms(LossWeights(clean=1.0)), log).total
        loss, nll = label_smoothed_nll_loss(
            output, targets.values, self.plain.eps, ignore_index=self.plain.padding_idx, reduce=True
        )
        if self.plain.report_accuracy and "n_correct" not in log:
            log["n_correct"] = (output.argmax(-1).eq(targets.values) & targets.mask).sum()
            log["total"] = targets.mask.sum()
        log.setdefault("nll_loss", nll.data)
        return loss

    def divergence(self, p: Any, q: Words, targets: Targets, kind: str, detach_p: bool = False) -> Tensor:
        if isinstance(q, Projected):
            terms = LossTerms(divergence=1.0, kind=kind, detach_p=detach_p)
            return self._fused(p, q, targets, terms, {}).total
        return masked_divergence(p, q, targets.mask, kind, detach_p)

    def joint_loss(
        self,
        p: Words,
        q: Words,
        targets: Targets,
        weights: LossWeights,
        kind: str,
        detach_p: bool,
        log: Dict[str, Any],
    ) -> JointLoss:
        if not isinstance(q, Projected):
            return super().joint_loss(p, q, targets, weights, kind, detach_p, log)
        found = self._fused(p, q, targets, self._terms(weights, kind, detach_p), log)
        return JointLoss(
            found.total,
            found.cross_entropy(1) if weights.perturbed else None,
            found.divergence if weights.divergence else None,
        )

    def _terms(self, weights: LossWeights, kind: str = "kl", detach_p: bool = False) -> LossTerms:
        return LossTerms(
            weights.clean,
            weights.perturbed,
            weights.divergence,
            kind,
            detach_p,
            smoothing=self.plain.eps,
            count_correct=self.plain.report_accuracy,
        )

    @staticmethod
    def _fused(p: Any, q: Optional[Projected], targets: Targets, terms: LossTerms, log: Dict[str, Any]) -> FusedLoss:
        """All *terms* at once; likelihood and accuracy of the first output with a cross-entropy go to *log*."""
        found = fused_loss(p, q, targets.values, targets.mask, terms)
        for side in (0, 1):
            if terms.of_side(side) and "nll_loss" not in log:
                log["nll_loss"] = found.nll(side)
                if terms.count_correct:
                    log.update(n_correct=found.correct(side), total=targets.mask.sum())
        return found

    def sample_size(self, sample: Dict[str, Any]) -> Any:
        return sample["target"].size(0) if self.plain.sentence_avg else sample["ntokens"]

    def training_log(self, sample: Dict[str, Any], loss: Tensor, columns: Dict[str, Any]) -> Dict[str, Any]:
        log = {
            "loss": loss.data,
            "nll_loss": columns["nll_loss"],
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": self.sample_size(sample),
        }
        if self.plain.report_accuracy:
            log.update(n_correct=utils.item(columns["n_correct"]), total=utils.item(columns["total"]))
        return log

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        LabelSmoothedCrossEntropyCriterion.reduce_metrics(logging_outputs)
