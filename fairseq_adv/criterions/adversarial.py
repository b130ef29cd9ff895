"""The frame of every criterion: plain cross-entropy, the method's penalty, and the log."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Tuple

from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from torch import Tensor, nn

from fairseq_adv.criterions.batch import TrainingBatch, bare_model
from fairseq_adv.criterions.config import SIDE_CHOICES, AdversarialConfig, check_adversarial
from fairseq_adv.criterions.lifecycle import TrainingLifecycle, attach
from fairseq_adv.losses import masked_divergence
from fairseq_adv.perturb import EmbeddingHook, Perturbation

# Sums over the batch: adv_loss over target tokens in nats, adv_nonfinite a count, the others over sentences.
LOG_KEYS = ("adv_loss", "adv_norm_src", "adv_norm_tgt", "adv_refresh", "adv_cached", "adv_nonfinite", "adv_sentences")


class AdversarialCriterion(TrainingLifecycle, LabelSmoothedCrossEntropyCriterion):
    """CE + λ · penalty in training; ``label_smoothed_cross_entropy`` itself in evaluation.

    A method implements :meth:`penalty`. The criterion has no parameters: one with parameters would be
    wrapped for distributed training and fail there.
    """

    def __init__(self, cfg: AdversarialConfig, task: Any) -> None:
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        check_adversarial(cfg)
        self.cfg = cfg
        self.sides = SIDE_CHOICES[str(cfg.adv_sides)]
        self._hook: Optional[EmbeddingHook] = None
        self._hooked: Optional[nn.Module] = None
        attach(task, self)

    # ---- what a method implements -------------------------------------------------------------------------

    def penalty(self, batch: TrainingBatch) -> Tuple[Tensor, Dict[str, Any]]:
        """The regulariser, a scalar summed over target tokens in nats, and its part of the log."""
        raise NotImplementedError

    def is_active(self) -> bool:
        """Whether this update is regularised; plain training otherwise."""
        return self.cfg.adv_lambda > 0 and self.update_num >= self.cfg.adv_start_update and not self.dummy_batch

    # ---- what fairseq calls -------------------------------------------------------------------------------

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Any, Dict[str, Any]]:
        """Loss (a sum, as ``sample_size`` expects it), sample size, log."""
        if not model.training or not self.is_active():
            loss, sample_size, log = super().forward(model, sample, reduce=reduce)
            log.update(dict.fromkeys(LOG_KEYS, 0))
            log["adv_sentences"] = log["nsentences"] if model.training else 0
            return loss, sample_size, log
        batch = TrainingBatch(self, model, sample, self.hook(model), str(self.cfg.adv_outer_masks) == "shared")
        penalty, own_log = self.penalty(batch)
        loss = batch.ce + self.cfg.adv_lambda * penalty
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        return loss, sample_size, self._log(batch, loss, penalty, sample_size, own_log)

    def hook(self, model: nn.Module) -> EmbeddingHook:
        """The hook on *model*'s word embeddings; put on at the first call."""
        bare = bare_model(model)
        if self._hook is None or self._hooked is not bare:
            refuse_unrepeatable(bare)
            if self._hook is not None:
                self._hook.remove()
            self._hook, self._hooked = EmbeddingHook(bare, self._pads()), bare
        return self._hook

    def _pads(self) -> Dict[str, int]:
        dictionaries = {"src": self.task.source_dictionary, "tgt": self.task.target_dictionary}
        return {side: dictionaries[side].pad() for side in self.sides}

    def divergence(self, batch: TrainingBatch, log_q: Tensor) -> Tensor:
        """ℓ_v of the outer loss between the batch's clean output and *log_q*, as the options say."""
        return masked_divergence(
            batch.log_probs, log_q, batch.target_mask, str(self.cfg.adv_divergence), self.cfg.adv_detach_clean
        )

    def _log(
        self, batch: TrainingBatch, loss: Tensor, penalty: Tensor, sample_size: Any, own_log: Dict[str, Any]
    ) -> Dict[str, Any]:
        log = {
            "loss": loss.data,
            "nll_loss": batch.nll.data,
            "ntokens": batch.sample["ntokens"],
            "nsentences": batch.sample["target"].size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            n_correct, total = self.compute_accuracy(self._hooked, batch.net_output, batch.sample)
            log.update(n_correct=utils.item(n_correct.data), total=utils.item(total.data))
        log.update(dict.fromkeys(LOG_KEYS, 0))
        log.update(own_log, adv_loss=penalty.data, adv_sentences=log["nsentences"])
        return log

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregate over micro-batches and ranks; the method's own columns appear in training only."""
        super().reduce_metrics(logging_outputs)
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in (*LOG_KEYS, "sample_size")}
        sentences = total["adv_sentences"]
        if sentences == 0:
            return
        metrics.log_scalar(
            "adv_loss", total["adv_loss"] / total["sample_size"] / math.log(2), total["sample_size"], round=5
        )
        for key in ("adv_norm_src", "adv_norm_tgt", "adv_refresh", "adv_cached"):
            metrics.log_scalar(key, total[key] / sentences, sentences, round=4)
        metrics.log_scalar_sum("adv_nonfinite", total["adv_nonfinite"])


def norm_log(delta: Perturbation) -> Dict[str, Tensor]:
    """``adv_norm_src`` and ``adv_norm_tgt``: the ℓ2 norms of the sentences' perturbations, summed over the batch."""
    return {f"adv_norm_{side}": delta.sentence_norms(side).sum() for side in delta.sides}


def refuse_unrepeatable(model: nn.Module) -> None:
    """Raise ``ValueError`` for what makes two passes differ by more than δ and dropout: product quantisation noise."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if getattr(hook, "__module__", "") == "fairseq.modules.quant_noise":
                raise ValueError(
                    "--quant-noise-pq changes weights at random inside each pass, so the effect of a perturbation "
                    "cannot be told from it; train with --quant-noise-pq 0"
                )
