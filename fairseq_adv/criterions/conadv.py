"""``conadv_label_smoothed``, ``conadv_sentence_prediction``: concurrent adversarial learning (Liu et al. 2022)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
from functools import partial
from typing import Any, Dict, Iterator, List, Optional

import torch
from torch import Tensor

from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.conadv_options import ConadvConfig, check_conadv, refuse_to_look_ahead
from fairseq_adv.criterions.frame.delayed_batches import Delayed, DelayedBatches, on_device
from fairseq_adv.criterions.frame.gathering import gather_on_first_rank, present_rank, world_size
from fairseq_adv.criterions.frame.look_ahead import LookAhead
from fairseq_adv.criterions.frame.one_step import OneStep
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.frame.spare_ranks import SpareRanks
from fairseq_adv.criterions.frame.training_log import norm_log
from fairseq_adv.criterions.heads.head import LossWeights
from fairseq_adv.methods.conadv import along
from fairseq_adv.methods.freelb import gradient_left_on, leaf_of
from fairseq_adv.perturb import Perturbation
from fairseq_adv.perturb.rng import reseed_from_state, untouched_rng


@register_method("conadv", ConadvConfig)
class ConadvCriterion(OneStep):
    """½[CE(x_t) + CE(x_t + δ_t)], δ = α g/‖g‖ with g one update old (τ = 1) and local to the rank.

    ``lookahead``: g is taken at x_t under θ_{t−τ}. Where no gradient was taken ahead (the first update of a run or
    an epoch, a batch after an overflow) it is taken under θ_t on the spot, as DisAdv does.

    ``shifted`` (ours): update t trains ½[CE(x_t) + CE(x_{t−1} + δ_{t−1})], g taken at x_{t−1} under θ_{t−1} by the
    backward pass of the last update. Each target token, clean or perturbed, weighs the same: the sum is divided by
    ½(N_t + N_{t−1}), N the target tokens of an update on all ranks. The first update of an epoch has no perturbed
    half, and the perturbed version of an epoch's last batches is not trained.
    """

    def __init__(self, cfg: ConadvConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_conadv(cfg)
        self.shifted = str(cfg.conadv_mode) == "shifted"
        if self.shifted and (self.concat or str(cfg.adv_outer_masks) == "shared"):
            option = "--adv-passes concat" if self.concat else "--adv-outer-masks shared"
            raise ValueError(
                f"{option} joins the clean and the perturbed pass of one batch, which --conadv-mode shifted trains in "
                "different updates: drop it or choose --conadv-mode lookahead"
            )
        self._looks_ahead = self.strength() > 0 and not self.shifted
        self._spare = str(cfg.conadv_placement) == "spare"
        if self._looks_ahead and hasattr(task, "look_ahead"):
            task.look_ahead(cfg.conadv_delay, self._spare)
        self.delayed = DelayedBatches()
        self.line: Optional[LookAhead] = None
        self._along: List[Delayed] = []  # what the present micro-batch trains beside itself in shifted mode
        self._new_attempt = True
        self._epoch_of_delayed: Optional[int] = None
        self._saved: Dict[str, Any] = {}

    # ---- lifecycle ----------------------------------------------------------------------------------------

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        super().begin_training(trainer, state)
        if self._looks_ahead:
            self._open_line(trainer.get_model())
        ranks = list((state or {}).get("ranks", []))
        if self.line is not None:
            self.line.restore(ranks)
        elif ranks and self.shifted:  # with another number of ranks, each goes on with its share
            own = [
                packed for rank, packs in enumerate(ranks) for packed in packs if rank % world_size() == present_rank()
            ]
            self.delayed.load_state_dict(own, self.pads())
            self._epoch_of_delayed = int(state["epoch"]) if state else None

    def _open_line(self, model: Any) -> None:
        refuse_to_look_ahead(self.task, self.head.own_task, self.hook(model))
        device, compute = next(model.parameters()).device, partial(self.upcoming_perturbation, model)
        if not self._spare:
            self.line = LookAhead(compute, device, self.cfg.conadv_delay)
        elif world_size() % 2:
            raise ValueError(
                f"--conadv-placement spare needs an even number of ranks, half of them to perturb, got {world_size()}: "
                "train on another number, or with --conadv-placement same"
            )
        else:
            self.line = SpareRanks(compute, partial(self.shape_of_upcoming, model), device, self.cfg.conadv_delay)

    def begin_epoch(self, epoch: int) -> None:
        if epoch != self._epoch_of_delayed:
            self.delayed.clear()
        self._epoch_of_delayed = epoch
        super().begin_epoch(epoch)

    def train(self, mode: bool = True) -> Any:
        """The trainer calls this once at the start of each attempt at an update."""
        self._new_attempt = self._new_attempt or mode
        return super().train(mode)

    def begin_micro_batch(self, update_num: int, dummy_batch: bool) -> None:
        super().begin_micro_batch(update_num, dummy_batch)
        self._saved = {}
        if self.shifted:
            self.delayed.begin(update_num, self._new_attempt)
            self._along = self.delayed.take() if self.is_active() else []
        elif self.line is not None:
            wanted = self._is_active_at(update_num + self.cfg.conadv_delay)
            self.line.begin(self.task.upcoming_batches(), self.task.present_size(), wanted)
            if not self.is_active():
                self.line.go()
                self.line.join()
        self._new_attempt = False

    def _is_active_at(self, update_num: int) -> bool:
        """Whether *update_num* will be regularised."""
        present, dummy = self.update_num, self.dummy_batch
        try:
            self.update_num, self.dummy_batch = update_num, False
            return self.is_active()
        finally:
            self.update_num, self.dummy_batch = present, dummy

    def before_save(self, end_of_epoch: bool) -> None:
        own = self.delayed.state_dict() if self.line is None else self.line.state()
        ranks = [] if end_of_epoch else gather_on_first_rank(own)
        self._saved = {"ranks": ranks, "epoch": self.epoch} if any(any(rank) for rank in ranks) else {}

    def checkpoint_state(self) -> Dict[str, Any]:
        """The delay lines of all ranks: about 8 · D bytes for each pair of a source and target token of an update."""
        return self._saved

    # ---- one batch ----------------------------------------------------------------------------------------

    def keeps(self) -> str:
        return "--criterion conadv_* carries perturbations by sample id"

    def needs_gradients_between(self) -> bool:
        return self.shifted

    def num_backwards(self) -> int:
        if self.shifted:
            return 1 + len(self._along)
        return 1 if self.concat else 2

    def drives_backward(self) -> bool:
        """Always where the method is on: something follows the last backward pass."""
        return self.is_active()

    def train_step(self, sample: Dict[str, Any], model: Any, optimizer: Any, update_num: int) -> Any:
        try:
            return super().train_step(sample, model, optimizer, update_num)
        finally:
            if self.line is not None:
                self.line.join()

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        return self._shifted_terms(batch) if self.shifted else self._present_terms(batch)

    def _sample_size(self, sample: Dict[str, Any]) -> Any:
        own = super()._sample_size(sample)
        if not self.shifted or not self.is_active():
            return own
        return 0.5 * (own + sum(super(ConadvCriterion, self)._sample_size(other) for other, _ in self._along))

    def _present_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        """Both halves on the present batch, at a δ that is known beforehand."""
        delta = self._delta(batch)
        batch.log.update(norm_log(delta))
        if self.concat:
            perturbed = batch.perturbed(delta)
            self._look_ahead()
            joint = batch.joint_loss(perturbed, LossWeights(clean=0.5, perturbed=0.5))
            adversarial = joint.perturbed
            yield joint.total
        else:
            clean = batch.clean
            self._look_ahead()
            yield 0.5 * batch.loss(clean)
            perturbed = batch.loss(batch.perturbed(delta))
            adversarial = perturbed.data
            yield 0.5 * perturbed
        batch.log["adv_loss"] = adversarial
        if self.line is not None:
            self.line.join()
            count = self.line.take_nonfinite()
            if count is not None:
                batch.log["adv_nonfinite"] = batch.log.get("adv_nonfinite", 0) + count

    def _look_ahead(self) -> None:
        """Once the clean pass is queued: what is computed ahead can then run beside it."""
        if self.line is not None:
            self.line.go()

    def _delta(self, batch: TrainingBatch) -> Perturbation:
        device, zero = batch.passes.ids.device, batch.passes.zero()
        ready, found = zero, [False] * len(batch.passes.ids)
        if self.line is not None:
            ready, found = self.line.ready.take(batch.ids_on_cpu, zero)
        if all(found):
            return ready
        with untouched_rng(device):
            reseed_from_state(device)
            fresh, broken = self.step_of(self.open_batch(batch.bare, batch.sample))
        anew = broken if not any(found) else broken & ~torch.tensor(found).to(device)
        batch.log["adv_nonfinite"] = anew.sum()
        return ready.where(found, fresh)

    def _shifted_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        """The clean half of the present batch, whose gradient is kept, and the last update's perturbed halves."""
        leaf = leaf_of(batch.passes.zero())
        yield 0.5 * batch.loss(batch.passes.clean(leaf))
        gradient, broken = gradient_left_on(leaf)
        self.delayed.keep(batch.sample, along(gradient, self.radius(self.cfg.conadv_alpha)))
        batch.log.update(adv_nonfinite=broken.sum())
        device = batch.passes.ids.device
        for index, delayed in enumerate(self._along):
            sample, delta = on_device(delayed, device)
            other = self.open_batch(batch.model, sample)
            with untouched_rng(device), self.hook(batch.bare).buffers.untouched():
                reseed_from_state(device, stream=index)
                adversarial = other.loss(other.passes.clean(delta))
            self._log_perturbed(batch, adversarial, delta)
            yield 0.5 * adversarial

    @staticmethod
    def _log_perturbed(batch: TrainingBatch, adversarial: Tensor, delta: Perturbation) -> None:
        for key, value in {**norm_log(delta), "adv_loss": adversarial.data}.items():
            batch.log[key] = batch.log.get(key, 0) + value
