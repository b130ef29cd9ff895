"""The frame of every criterion: the task's own loss, the method's penalty, and the log."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, ClassVar, ContextManager, Dict, Iterator, List, Optional, Tuple, Type, cast

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from fairseq.models.lstm import LSTMEncoder
from fairseq.optim.amp_optimizer import AMPOptimizer
from torch import Tensor, nn

from fairseq_adv.criterions.frame.batch import OuterLoss, TrainingBatch, bare_model
from fairseq_adv.criterions.frame.config import (
    AdversarialConfig,
    check_adversarial,
    perturbed_sides,
    run_seed,
    take_seed,
)
from fairseq_adv.criterions.frame.lifecycle import TrainingLifecycle, attach
from fairseq_adv.criterions.frame.radius import RadiusSchedule
from fairseq_adv.criterions.heads.head import Head, LossWeights
from fairseq_adv.perturb import EmbeddingHook, Output, Perturbation

# Sums over the batch: adv_loss over target tokens in nats, adv_nonfinite a count, the others over sentences.
LOG_KEYS = (
    "adv_loss",
    "adv_norm_src",
    "adv_norm_tgt",
    "adv_refresh",
    "adv_cached",
    "adv_further",  # rebuilt from a further neighbour than the nearest, which is not in the cache
    "adv_without",  # no neighbour in the cache: trained with δ = 0
    "adv_nonfinite",
    "adv_sentences",
)
_TENSOR_KEYS = ("adv_loss", "adv_norm_src", "adv_norm_tgt", "adv_nonfinite")


class AdversarialCriterion(TrainingLifecycle, FairseqCriterion):
    """Task loss + λ · penalty in training; in evaluation the criterion of fairseq that its head stands for.

    A method implements :meth:`compared_output`. The criterion has no parameters: one with parameters would be
    wrapped for distributed training and fail there.
    """

    head_type: ClassVar[Type[Head]]

    def __init__(self, cfg: AdversarialConfig, task: Any) -> None:
        super().__init__(task)
        check_adversarial(cfg)
        take_seed(cfg)
        self.seed = run_seed(cfg)
        self.cfg = cfg
        self.head = self.head_type(cfg, task)
        self.sides = perturbed_sides(str(cfg.adv_sides), self.head)
        self.concat = str(cfg.adv_passes) == "concat"
        self.trains_perturbed = str(cfg.adv_objective) == "perturbed"
        if self.trains_perturbed:
            self._require_divergence()
        self.radius_schedule = RadiusSchedule.parse(cfg.adv_radius_schedule)
        self._hook: Optional[EmbeddingHook] = None
        self._hooked: Optional[nn.Module] = None
        attach(task, self)

    # ---- what a method implements -------------------------------------------------------------------------

    def compared_output(self, batch: TrainingBatch) -> Output:
        """The output whose divergence from the clean one is the penalty; the method's columns go to ``batch.log``."""
        raise NotImplementedError

    def divergence_factor(self) -> float:
        """What the method multiplies the divergence by, beside its weight."""
        return 1.0

    def further_penalty(self, batch: TrainingBatch) -> Optional[Tensor]:
        """What a method adds to the divergence, a sum of the same unit; ``None`` for nothing."""
        return None

    def strength(self) -> float:
        """The weight of the regulariser; 0 means plain training."""
        return self.cfg.adv_lambda

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        """The loss in as many terms as there are backward passes (:meth:`num_backwards`).

        A term is asked for when the one before it has been propagated back, so that a later term may use its gradients;
        after the last one the generator goes on to its end.
        """
        if self.num_backwards() == 2:  # nothing flows through the clean output: let its graph go first
            yield batch.loss(batch.clean)
            yield self._regularised_loss(batch, clean=0.0)
        elif self.trains_perturbed:
            yield self._regularised_loss(batch, clean=0.0, perturbed=1.0)
        else:
            yield self._regularised_loss(batch, clean=1.0)

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
        if type(self).compared_output is AdversarialCriterion.compared_output:
            raise ValueError(
                "--adv-objective perturbed replaces the clean cross-entropy beside a divergence from the clean output, "
                f"but the loss of {type(self).__name__} has no such divergence, or trains both outputs; leave it at "
                "clean"
            )

    def _regularised_loss(self, batch: TrainingBatch, clean: float, perturbed: float = 0.0) -> Tensor:
        """The penalty with its weight, beside the task's losses as they are weighted."""
        factor = self.divergence_factor()
        weights = LossWeights(clean, perturbed, self.strength() * factor)
        joint = batch.joint_loss(self.compared_output(batch), weights)
        assert joint.divergence is not None
        further = self.further_penalty(batch)
        if further is None:
            batch.log["adv_loss"] = factor * joint.divergence
            return joint.total
        batch.log["adv_loss"] = factor * joint.divergence + further.data
        return joint.total + self.strength() * further

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
            self.head.check_model(bare_model(trainer.get_model()))
            self.hook(trainer.get_model())

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Any, Dict[str, Any]]:
        """Loss (a sum, as ``sample_size`` expects it), sample size, log."""
        if not model.training or not self.is_active():
            loss, sample_size, log = self.head.plain(model, sample, reduce=reduce)
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
        cfg = self.cfg
        outer = OuterLoss(
            divergence=str(cfg.adv_divergence),
            detach_clean=cfg.adv_detach_clean,
            shared_masks=str(cfg.adv_outer_masks) == "shared",
            concat=self.concat,
            trains_perturbed=self.trains_perturbed,
        )
        return TrainingBatch(self.head, model, sample, self.hook(model), outer)

    def _sample_size(self, sample: Dict[str, Any]) -> Any:
        return self.head.sample_size(sample)

    def hook(self, model: nn.Module) -> EmbeddingHook:
        """The hook on *model*'s word embeddings; put on at the first call."""
        bare = bare_model(model)
        if self._hook is None or self._hooked is not bare:
            refuse_unrepeatable(bare)
            if self.concat:
                refuse_doubled_rows(bare)
            if self._hook is not None:
                self._hook.remove()
            self._hook, self._hooked = EmbeddingHook(bare, self.pads()), bare
        return self._hook

    def pads(self) -> Dict[str, int]:
        """The padding index of each perturbed side."""
        pads = self.head.pads()
        return {side: pads[side] for side in self.sides}

    def radius(self, base: float) -> float:
        """*base* times the factor of ``--adv-radius-schedule`` at this update."""
        return base * self.radius_schedule.at(self.update_num)

    def _log(self, batch: TrainingBatch, loss: Tensor) -> Dict[str, Any]:
        log = self.head.training_log(batch.sample, loss, batch.log)
        log["sample_size"] = self._sample_size(batch.sample)
        return {**log, **uniform_log({**batch.log, "adv_sentences": log["nsentences"]}, loss.device)}

    def logging_outputs_can_be_summed(self) -> bool:
        """Whether ranks may add up their logs, value for value."""
        return self.head.logs_can_be_summed()

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregate over micro-batches and ranks; the method's own columns appear in training only."""
        cls.head_type.reduce_metrics(logging_outputs)
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in (*LOG_KEYS, "sample_size")}
        sentences = total["adv_sentences"]
        if sentences == 0:
            return
        metrics.log_scalar(
            "adv_loss", total["adv_loss"] / total["sample_size"] / math.log(2), total["sample_size"], round=5
        )
        for key in ("adv_norm_src", "adv_norm_tgt", "adv_refresh", "adv_cached", "adv_further", "adv_without"):
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
