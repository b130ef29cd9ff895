"""Translation: a distribution over words for each target token, and label-smoothed cross-entropy."""

from __future__ import annotations

from typing import Any, Dict, List

import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
    label_smoothed_nll_loss,
)
from torch import Tensor, nn

from fairseq_adv.criterions.heads.head import Head, Targets, doubled_input
from fairseq_adv.losses import masked_divergence

TOKENS = {"src": "src_tokens", "tgt": "prev_output_tokens"}


class TranslationHead(Head):
    """Outputs are log-probs ``N x V``, N = B·T with padding; divergences are summed over target tokens, in nats."""

    suffix = "label_smoothed"
    options = LabelSmoothedCrossEntropyCriterionConfig
    sides = ("src", "tgt")
    own_task = "adversarial_translation"

    def __init__(self, cfg: Any, task: Any) -> None:
        self.plain = LabelSmoothedCrossEntropyCriterion(
            task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy
        )
        self._dictionaries = {"src": task.source_dictionary, "tgt": task.target_dictionary}

    def pads(self) -> Dict[str, int]:
        return {side: dictionary.pad() for side, dictionary in self._dictionaries.items()}

    def tokens(self, sample: Dict[str, Any], side: str) -> Tensor:
        return sample["net_input"][TOKENS[side]]

    def forward(self, model: nn.Module, sample: Dict[str, Any]) -> Tensor:
        net_output = model(**sample["net_input"])
        return self.plain.get_lprobs_and_target(model, net_output, sample)[0]

    def doubled(self, sample: Dict[str, Any]) -> Dict[str, Any]:
        return {"net_input": doubled_input(sample), "target": torch.cat([sample["target"], sample["target"]])}

    def check_model(self, model: nn.Module) -> None:
        """Every model of a translation task will do."""

    def targets(self, sample: Dict[str, Any]) -> Targets:
        values = sample["target"][:, self.plain.ignore_prefix_size :].reshape(-1)  # N, padding included
        return Targets(values, values.ne(self.plain.padding_idx))

    def loss(self, output: Tensor, targets: Targets, log: Dict[str, Any]) -> Tensor:
        loss, nll = label_smoothed_nll_loss(
            output, targets.values, self.plain.eps, ignore_index=self.plain.padding_idx, reduce=True
        )
        if self.plain.report_accuracy and "n_correct" not in log:
            log["n_correct"] = (output.argmax(-1).eq(targets.values) & targets.mask).sum()
            log["total"] = targets.mask.sum()
        log.setdefault("nll_loss", nll.data)
        return loss

    def divergence(self, p: Tensor, q: Tensor, targets: Targets, kind: str, detach_p: bool = False) -> Tensor:
        return masked_divergence(p, q, targets.mask, kind, detach_p)

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
