"""The frame of every criterion: plain cross-entropy, the method's penalty, and the log."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Tuple, cast

import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.models.lstm import LSTMEncoder
from fairseq.optim.amp_optimizer import AMPOptimizer
from torch import Tensor, nn

from fairseq_adv.criterions.frame.batch import TrainingBatch, bare_model
from fairseq_adv.criterions.frame.config import SIDE_CHOICES, AdversarialConfig, check_adversarial
from fairseq_adv.criterions.frame.lifecycle import TrainingLifecycle, attach
from fairseq_adv.criterions.frame.radius import RadiusSchedule
from fairseq_adv.losses import masked_divergence
from fairseq_adv.perturb import EmbeddingHook, Perturbation

# Sums over the batch: adv_loss over target tokens in nats, adv_nonfinite a count, the others over sentences.
LOG_KEYS = ("adv_loss", "adv_norm_src", "adv_norm_tgt", "adv_refresh", "adv_cached", "adv_nonfinite", "adv_sentences")
_TENSOR_KEYS = ("adv_loss", "adv_norm_src", "adv_norm_tgt", "adv_nonfinite")


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
        self.concat = str(cfg.adv_passes) == "concat"
        self.trains_perturbed = str(cfg.adv_objective) == "perturbed"
        if self.trains_perturbed:
            self._require_divergence()
        self.radius_schedule = RadiusSchedule.parse(cfg.adv_radius_schedule)
        self._hook: Optional[EmbeddingHook] = None
        self._hooked: Optional[nn.Module] = None
        attach(task, self)

    # ---- what a method implements -------------------------------------------------------------------------

    def penalty(self, batch: TrainingBatch) -> Tensor:
        """The regulariser, a scalar summed over target tokens in nats; its columns go to ``batch.log``."""
        raise NotImplementedError

    def strength(self) -> float:
        """The weight of the regulariser; 0 means plain training."""
        return self.cfg.adv_lambda

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        """The loss in as many terms as there are backward passes (:meth:`num_backwards`).

        A term is asked for when the one before it has been propagated back, so that a later term may use its gradients;
        after the last one the generator goes on to its end.
        """
        if self.num_backwards() == 2:  # nothing flows through the clean output: let its graph go first
            yield batch.ce
            penalty = self._weighted_penalty(batch)
            yield penalty
        else:
            penalty = self._weighted_penalty(batch)  # first: the cross-entropy may be that of its perturbed output
            yield batch.ce + penalty

    def num_backwards(self) -> int:
        """How many backward passes one batch takes."""
        detached = self.cfg.adv_detach_clean and not self.concat and not self.trains_perturbed
        return 2 if detached and self.strength() > 0 else 1

    def is_active(self) -> bool:
        """Whether this update is regularised; plain training otherwise."""
        started = self.update_num >= self.cfg.adv_start_update
        return self.strength() > 0 and started and self.is_due() and not self.dummy_batch

    def is_due(self) -> bool:
        """Whether ``--adv-every`` counts this update in."""
        return (self.update_num - self.cfg.adv_start_update) % self.cfg.adv_every == 0

    def _require_divergence(self) -> None:
        """Refuse ``--adv-objective perturbed`` for a method without a penalty between clean and perturbed output."""
        if type(self).penalty is AdversarialCriterion.penalty:
            raise ValueError(
                "--adv-objective perturbed replaces the clean cross-entropy beside a divergence from the clean output, "
                f"but the loss of {type(self).__name__} has no such divergence, or trains both outputs; leave it at "
                "clean"
            )

    def _weighted_penalty(self, batch: TrainingBatch) -> Tensor:
        penalty = self.penalty(batch)
        batch.log["adv_loss"] = penalty.data
        return self.strength() * penalty

    # ---- what fairseq calls -------------------------------------------------------------------------------

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        """Refuse, before the first update, what the hooks on word embeddings cannot work with."""
        backend = str(trainer.cfg.distributed_training.ddp_backend)
        if backend == "fully_sharded":
            raise ValueError(
                f"--ddp-backend {backend} frees parameters after each pass, but a method runs several passes, some of "
                "them on the bare model; choose legacy_ddp or pytorch_ddp"
            )
        if self.strength() > 0:
            self.hook(trainer.get_model())

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Any, Dict[str, Any]]:
        """Loss (a sum, as ``sample_size`` expects it), sample size, log."""
        if not model.training or not self.is_active():
            loss, sample_size, log = super().forward(model, sample, reduce=reduce)
            own = {"adv_sentences": log["nsentences"]} if model.training else {}
            return loss, sample_size, {**log, **uniform_log(own, sample["target"].device)}
        batch = self.open_batch(model, sample)
        loss = sum(self.loss_terms(batch), torch.zeros((), device=sample["target"].device))
        return loss, self._sample_size(sample), self._log(batch, loss)

    def drives_backward(self) -> bool:
        """Whether the coming batch takes several backward passes, and so :meth:`train_step` instead of fairseq's."""
        return self.is_active() and self.num_backwards() > 1

    def train_step(
        self, sample: Dict[str, Any], model: nn.Module, optimizer: Any, update_num: int
    ) -> Tuple[Tensor, Any, Dict[str, Any]]:
        """As ``FairseqTask.train_step``, with a backward pass for each term; gradients are reduced in the last one."""
        model.train()
        cast(Any, model).set_num_updates(update_num)
        amp = isinstance(optimizer, AMPOptimizer)
        with autocast(amp):
            batch = self.open_batch(model, sample)
        terms, count = self.loss_terms(batch), self.num_backwards()
        total = torch.zeros((), device=sample["target"].device)
        for index in range(count):
            with no_gradient_sync(model) if index < count - 1 else nullcontext():
                with autocast(amp):
                    term = next(terms)
                optimizer.backward(term)
            total = total + term.detach()
        next(terms, None)  # what a method does with the gradients of its last backward pass
        return total, self._sample_size(sample), self._log(batch, total)

    def open_batch(self, model: nn.Module, sample: Dict[str, Any]) -> TrainingBatch:
        """The passes over *sample* as the options want them."""
        shared = str(self.cfg.adv_outer_masks) == "shared"
        return TrainingBatch(self, model, sample, self.hook(model), shared, self.concat, self.trains_perturbed)

    def _sample_size(self, sample: Dict[str, Any]) -> Any:
        return sample["target"].size(0) if self.sentence_avg else sample["ntokens"]

    def hook(self, model: nn.Module) -> EmbeddingHook:
        """The hook on *model*'s word embeddings; put on at the first call."""
        bare = bare_model(model)
        if self._hook is None or self._hooked is not bare:
            refuse_unrepeatable(bare)
            if self.concat:
                refuse_doubled_rows(bare)
            if self._hook is not None:
                self._hook.remove()
            self._hook, self._hooked = EmbeddingHook(bare, self._pads()), bare
        return self._hook

    def _pads(self) -> Dict[str, int]:
        dictionaries = {"src": self.task.source_dictionary, "tgt": self.task.target_dictionary}
        return {side: dictionaries[side].pad() for side in self.sides}

    def divergence(self, batch: TrainingBatch, log_q: Tensor) -> Tensor:
        """ℓ_v of the outer loss between the batch's clean output and *log_q*, as the options say."""
        return self.divergence_between(batch, batch.log_probs, log_q)

    def divergence_between(self, batch: TrainingBatch, log_p: Tensor, log_q: Tensor) -> Tensor:
        """ℓ_v of the outer loss between two outputs of *batch*, ``N x V`` each."""
        kind = str(self.cfg.adv_divergence)
        return masked_divergence(log_p, log_q, batch.target_mask, kind, self.cfg.adv_detach_clean)

    def radius(self, base: float) -> float:
        """*base* times the factor of ``--adv-radius-schedule`` at this update."""
        return base * self.radius_schedule.at(self.update_num)

    def _log(self, batch: TrainingBatch, loss: Tensor) -> Dict[str, Any]:
        sentences = batch.sample["target"].size(0)
        log: Dict[str, Any] = {
            "loss": loss.data,
            "nll_loss": batch.log["nll_loss"],
            "ntokens": batch.sample["ntokens"],
            "nsentences": sentences,
            "sample_size": self._sample_size(batch.sample),
        }
        if self.report_accuracy:
            log.update(n_correct=utils.item(batch.log["n_correct"]), total=utils.item(batch.target_mask.sum()))
        return {**log, **uniform_log({**batch.log, "adv_sentences": sentences}, loss.device)}

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


def autocast(enabled: bool) -> ContextManager[None]:
    """What ``--amp`` means for fairseq: mixed precision on a GPU, and no change on a CPU."""
    return torch.autocast("cuda", enabled=enabled and torch.cuda.is_available())


def no_gradient_sync(model: nn.Module) -> ContextManager[None]:
    """Inside, a backward pass of a distributed *model* keeps its gradients to this rank."""
    return cast(Any, model).no_sync() if hasattr(model, "no_sync") else nullcontext()


def uniform_log(values: Dict[str, Any], device: torch.device) -> Dict[str, Any]:
    """*values* of :data:`LOG_KEYS`, 0 where there is none, in one order and with one type for each.

    Fairseq sums the logs of the ranks by position, tensors apart from numbers; a dummy batch's log must line up.
    """
    log: Dict[str, Any] = {key: values.get(key, 0) for key in LOG_KEYS}
    for key in _TENSOR_KEYS:
        value = log[key]
        log[key] = value.float() if torch.is_tensor(value) else torch.full((), float(value), device=device)
    return log


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


def refuse_doubled_rows(model: nn.Module) -> None:
    """Raise ``ValueError`` for an encoder whose rows must come sorted by length, which a batch twice over is not."""
    if isinstance(getattr(model, "encoder", None), LSTMEncoder):
        raise ValueError(
            f"--adv-passes concat puts a batch twice into one pass, but {type(model).__name__} needs sentences sorted "
            "by length; train with --adv-passes sequential"
        )
