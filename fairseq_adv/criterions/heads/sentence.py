"""Sentence prediction: classes of a sentence or pair of sentences, or numbers (regression)."""

from __future__ import annotations

from typing import Any, Dict, List

import torch
import torch.nn.functional as F
from fairseq.criterions.sentence_prediction import SentencePredictionConfig, SentencePredictionCriterion
from torch import Tensor, nn

from fairseq_adv.criterions.heads.head import Head, Targets, doubled_input
from fairseq_adv.losses import masked_divergence


class SentenceHead(Head):
    """Outputs are log-probs ``B x C`` of C classes, or predicted numbers ``B`` with ``--regression-target``.

    A pair is one input, its sentences behind each other, so there is one side. The divergence of classes is that of
    distributions, in nats; of numbers it is (f(x) − f(x + δ))² (ARCH, Sec. 3.1), and ``--adv-divergence`` is refused.
    """

    suffix = "sentence_prediction"
    options = SentencePredictionConfig
    sides = ("src",)
    own_task = "adversarial_sentence_prediction"

    def __init__(self, cfg: Any, task: Any) -> None:
        self.plain = SentencePredictionCriterion(cfg, task)
        self.has_directions = not cfg.regression_target
        self._pad = task.source_dictionary.pad()

    def pads(self) -> Dict[str, int]:
        return {"src": self._pad}

    def tokens(self, sample: Dict[str, Any], side: str) -> Tensor:
        return sample["net_input"]["src_tokens"]

    def forward(self, model: nn.Module, sample: Dict[str, Any]) -> Tensor:
        name = self.plain.classification_head_name
        scores, _ = model(**sample["net_input"], features_only=True, classification_head_name=name)
        if self.plain.regression_target:
            return scores.view(-1).float()
        return F.log_softmax(scores, dim=-1, dtype=torch.float32)

    def doubled(self, sample: Dict[str, Any]) -> Dict[str, Any]:
        return {"net_input": doubled_input(sample)}

    def check_model(self, model: nn.Module) -> None:
        name, heads = self.plain.classification_head_name, getattr(model, "classification_heads", None)
        if heads is None or name not in heads:
            raise ValueError(
                f"--classification-head-name {name}: {type(model).__name__} has no head of that name for sentences; "
                "train with --task sentence_prediction or adversarial_sentence_prediction and an encoder such as "
                "--arch roberta"
            )
        for option in ("mha_reg_scale_factor", "ffn_reg_scale_factor"):
            if getattr(getattr(model, "args", None), option, 0.0) != 0.0:
                raise ValueError(
                    f"--{option.replace('_', '-')} adds a loss of the parameters, which fairseq's sentence_prediction "
                    "does by itself and a regularised update would leave out; set it to 0"
                )

    def targets(self, sample: Dict[str, Any]) -> Targets:
        values = sample["target"].view(-1)
        values = values.float() if self.plain.regression_target else values
        return Targets(values, torch.ones_like(values, dtype=torch.bool))

    def loss(self, output: Tensor, targets: Targets, log: Dict[str, Any]) -> Tensor:
        if self.plain.regression_target:
            return F.mse_loss(output, targets.values, reduction="sum")
        if "ncorrect" not in log:
            log["ncorrect"] = (output.argmax(dim=1) == targets.values).sum()
        return F.nll_loss(output, targets.values, reduction="sum")

    def divergence(self, p: Tensor, q: Tensor, targets: Targets, kind: str, detach_p: bool = False) -> Tensor:
        if not self.plain.regression_target:
            return masked_divergence(p, q, targets.mask, kind, detach_p)
        return (q - (p.detach() if detach_p else p)).square().sum()

    def sample_size(self, sample: Dict[str, Any]) -> Any:
        return sample["target"].numel()

    def training_log(self, sample: Dict[str, Any], loss: Tensor, columns: Dict[str, Any]) -> Dict[str, Any]:
        size = self.sample_size(sample)
        log = {"loss": loss.data, "ntokens": sample["ntokens"], "nsentences": size, "sample_size": size}
        if not self.plain.regression_target:
            log["ncorrect"] = columns["ncorrect"]
        return log

    def logs_can_be_summed(self) -> bool:
        """Not where fairseq's own criterion logs lists, which its sum over ranks cannot add to numbers."""
        return not self.plain.keep_pred_and_targ

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        SentencePredictionCriterion.reduce_metrics(logging_outputs)
