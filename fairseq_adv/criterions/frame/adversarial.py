"""The frame of every criterion: the task's own loss, the method's penalty, and the log."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Dict, Iterator, List, Optional, Tuple, Type, cast

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.optim.amp_optimizer import AMPOptimizer
from torch import Tensor, nn

from fairseq_adv.criterions.frame.batch import OuterLoss, TrainingBatch, autocast
from fairseq_adv.criterions.frame.config import (
    AdversarialConfig,
    check_adversarial,
    perturbed_sides,
    run_seed,
    take_seed,
)
from fairseq_adv.criterions.frame.honoured import refuse_not_honoured
from fairseq_adv.criterions.frame.hooked_models import HookedModels
from fairseq_adv.criterions.frame.lifecycle import attach
from fairseq_adv.criterions.frame.outer_options import check_outer_passes
from fairseq_adv.criterions.frame.part import BatchPart, chosen_rows
from fairseq_adv.criterions.frame.radius import RadiusSchedule
from fairseq_adv.criterions.frame.reduction import no_gradient_sync
from fairseq_adv.criterions.frame.start import StartRule
from fairseq_adv.criterions.frame.training_log import reduce_own_columns, uniform_log
from fairseq_adv.criterions.heads.head import Head, LossWeights
from fairseq_adv.perturb import Output


class AdversarialCriterion(HookedModels, FairseqCriterion):
    """Task loss + λ · penalty in training; in evaluation the criterion of fairseq that its head stands for.

    A method implements :meth:`compared_output`. The criterion has no parameters: one with parameters would be
    wrapped for distributed training and fail there.
    """

    head_type: ClassVar[Type[Head]]
    method: ClassVar[str] = ""  # the name that it is registered under, without the head's

    def __init__(self, cfg: AdversarialConfig, task: Any) -> None:
        super().__init__(task)
        check_adversarial(cfg)
        check_outer_passes(cfg)
        refuse_not_honoured(self.method, cfg)
        take_seed(cfg)
        self.seed = run_seed(cfg)
        self.cfg = cfg
        self.head = self.head_type(cfg, task)
        self.sides = perturbed_sides(str(cfg.adv_sides), self.head)
        self.concat = str(cfg.adv_passes) == "concat"
        self.recompute = str(cfg.adv_passes) == "recompute"
        self.trains_perturbed = str(cfg.adv_objective) == "perturbed"
        if self.trains_perturbed:
            self._require_divergence()
        self.start = StartRule(str(cfg.adv_start_update))
        self.radius_schedule = RadiusSchedule.parse(cfg.adv_radius_schedule)
        self.hook_nothing()
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
        if self.num_backwards() == 2 and not self.recompute:
            yield batch.loss(batch.clean)  # nothing more flows through the clean output: let its graph go first
            yield self._regularised_loss(self.part_of(batch), clean=0.0)
        elif self.trains_perturbed:
            yield self._regularised_loss(batch, clean=0.0, perturbed=1.0)
        else:
            part = self.part_of(batch)
            total = self._regularised_loss(part, clean=1.0)
            yield from self._recomputed_terms(part, total, LossWeights()) if self.recompute else (total,)

    def part_of(self, batch: TrainingBatch) -> TrainingBatch:
        """The rows of *batch* that ``--adv-fraction`` leaves to the method in this epoch."""
        if self.fraction() == 1.0:
            return batch
        rows, factor = chosen_rows(batch.ids_on_cpu, self.fraction(), self.seed, self.epoch)
        batch.log["adv_regularised"] = len(rows)
        return BatchPart(batch, torch.from_numpy(rows), factor)

    def fraction(self) -> float:
        """The share of the rows that is regularised in this update."""
        return self.cfg.adv_fraction

    def num_backwards(self) -> int:
        """How many backward passes one batch takes."""
        if self.recompute:
            return 2
        detached = self.cfg.adv_detach_clean and not self.concat and not self.trains_perturbed
        return 2 if detached and self.strength() > 0 else 1

    def _recomputed_terms(self, batch: TrainingBatch, total: Tensor, weights: LossWeights) -> Iterator[Tensor]:
        """*total*, whose perturbed output has no graph; then what of it flows through that output, by another pass.

        *weights* has what the perturbed output's own loss weighs. The second term is worth nothing, for the first one's
        value has it already; its gradient is what counts.
        """
        yield total
        del total
        again = batch.perturbed_again()
        weight = weights.divergence or self.strength() * self.divergence_factor()
        missing = batch.joint_loss(again, replace(weights, divergence=weight)).total
        yield missing - missing.detach()

    def is_active(self) -> bool:
        """Whether this update is regularised; plain training otherwise."""
        started = self.start.has_begun(self.update_num)
        return self.strength() > 0 and started and self.is_due() and not self.dummy_batch

    def is_due(self) -> bool:
        """Whether ``--adv-every`` counts this update in."""
        return self.start.is_due(self.update_num, self.cfg.adv_every)

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
        further = self.further_penalty(batch.whole)
        if further is None:
            batch.log["adv_loss"] = factor * joint.divergence
            return joint.total
        batch.log["adv_loss"] = factor * joint.divergence + further.data
        return joint.total + self.strength() * further

    # ---- what fairseq calls -------------------------------------------------------------------------------

    def may_drive_backward(self) -> bool:
        """Whether :meth:`drives_backward` may be true in some update."""
        return type(self).drives_backward is not AdversarialCriterion.drives_backward or self.num_backwards() > 1

    def end_epoch(self, validation: Optional[float], maximize: bool, update_num: int) -> None:
        self.start.validated(validation, maximize, update_num)

    def start_state(self) -> Dict[str, Any]:
        return self.start.state_dict()

    def load_start_state(self, state: Dict[str, Any]) -> None:
        self.start.load_state_dict(state)

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Any, Dict[str, Any]]:
        """Loss (a sum, as ``sample_size`` expects it), sample size, log."""
        if not model.training:
            loss, sample_size, log = self.head.plain(model, sample, reduce=reduce)
            return loss, sample_size, {**log, **uniform_log({}, sample["target"].device)}
        if not self.is_active():
            loss, sample_size, log = self.head.plain_update(model, sample, reduce=reduce)
            own = {"adv_sentences": log["nsentences"]}
            return loss, sample_size, {**log, **uniform_log(own, sample["target"].device)}
        if self.needs_gradients_between():
            raise RuntimeError("the loss at δ needs its backward pass before δ can move: train through train_step")
        batch = self.open_batch(model, sample)
        loss = sum(self.loss_terms(batch), torch.zeros((), device=sample["target"].device))
        return loss, self._sample_size(sample), self._log(batch, loss)

    def drives_backward(self) -> bool:
        """Whether the coming batch takes several backward passes, and so :meth:`train_step` instead of fairseq's."""
        return self.is_active() and self.num_backwards() > 1

    def needs_gradients_between(self) -> bool:
        """Whether a term of the loss comes from the gradients of the one before, so that no sum of them will do."""
        return False

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
        outer = OuterLoss.of(self.cfg)
        return TrainingBatch(self.head, model, sample, self.hook(model), outer)

    def _sample_size(self, sample: Dict[str, Any]) -> Any:
        return self.head.sample_size(sample)

    def radius(self, base: float) -> float:
        """*base* times the factor of ``--adv-radius-schedule`` at this update."""
        return base * self.radius_schedule.at(self.update_num)

    def _log(self, batch: TrainingBatch, loss: Tensor) -> Dict[str, Any]:
        log = self.head.training_log(batch.sample, loss, batch.log)
        log["sample_size"] = self._sample_size(batch.sample)
        counts = {"adv_sentences": log["nsentences"], "adv_regularised": log["nsentences"]}
        return {**log, **uniform_log({**counts, **batch.log, "adv_sample_size": log["sample_size"]}, loss.device)}

    def logging_outputs_can_be_summed(self) -> bool:
        """Whether ranks may add up their logs, value for value."""
        return self.head.logs_can_be_summed()

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregate over micro-batches and ranks; the method's own columns appear in training only."""
        cls.head_type.reduce_metrics(logging_outputs)
        reduce_own_columns(logging_outputs)
