"""``freeat_label_smoothed``, ``freeat_sentence_prediction``: FreeAT (Shafahi et al. 2019)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, Optional

from torch import Tensor

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AscentConfig, ascent_of, check_ascent, require
from fairseq_adv.criterions.frame.gathering import gather_on_first_rank
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.methods.freeat import freeat_term
from fairseq_adv.perturb import Perturbation
from fairseq_adv.perturb.carried import CarriedPerturbations


@dataclass
class FreeatConfig(AscentConfig):
    """The number of replays beside the ascent's options."""

    freeat_replays: int = field(
        default=3,
        metadata={
            "help": "updates K in a row on each batch, each of which moves the parameters and the perturbation by one "
            "step; divide --max-epoch by K for plain training's number of updates"
        },
    )
    adv_steps: int = field(default=1, metadata={"help": "must be 1: FreeAT takes one ascent step in each replay"})


@register_method("freeat", FreeatConfig)
class FreeatCriterion(AdversarialCriterion):
    """CE(x + δ), K updates in a row on the same batch; δ moves with each update and starts anew with each batch.

    The learning rate and ``--max-update`` count each replay as an update. Replays come from a task of
    this package, which repeats whole groups of micro-batches.
    """

    def __init__(self, cfg: FreeatConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_ascent(cfg)
        rule = "normalised: the gradient comes from the training's backward pass, in the units of its loss scale"
        require(str(cfg.adv_gradient) == "normalised", "--adv-gradient", rule, str(cfg.adv_gradient))
        require(cfg.freeat_replays >= 1, "--freeat-replays", ">= 1", cfg.freeat_replays)
        require(
            cfg.adv_steps == 1, "--adv-steps", "1 (FreeAT's steps are its replays: --freeat-replays)", cfg.adv_steps
        )
        rule = "0 (off) or 1: FreeAT's loss has no clean term to weigh against"
        require(cfg.adv_lambda in (0.0, 1.0), "--adv-lambda", rule, cfg.adv_lambda)
        if self.start.is_auto:
            raise ValueError(
                "--adv-start-update auto: FreeAT's replays are planned before the first epoch; give a number of updates"
            )
        if self._replays() and hasattr(task, "replay_updates"):
            task.replay_updates(cfg.freeat_replays, self.start.update)
        self.carried = CarriedPerturbations()  # what this update starts from
        self.moved = CarriedPerturbations()  # what the next one starts from
        self._carried_to: Optional[int] = None  # the update that self.carried is for
        self._epoch_of_carried: Optional[int] = None
        self._saved: Dict[str, Any] = {}

    def _replays(self) -> bool:
        return self.strength() > 0 and self.cfg.freeat_replays > 1

    # ---- lifecycle ----------------------------------------------------------------------------------------

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        super().begin_training(trainer, state)
        if self._replays() and not hasattr(self.task, "replay_updates"):
            raise ValueError(
                f"--freeat-replays {self.cfg.freeat_replays} repeats each update's batch, which the batch iterator of "
                f"{type(self.task).__name__} cannot do: train with --task {self.head.own_task}"
            )
        if state and "epoch" in state:
            self.moved = CarriedPerturbations.from_states(state["moved"])
            self._epoch_of_carried = int(state["epoch"])

    def begin_epoch(self, epoch: int) -> None:
        """A batch's replays never cross epochs, so nothing is carried from one to the next."""
        if epoch != self._epoch_of_carried:
            self.carried, self.moved = CarriedPerturbations(), CarriedPerturbations()
        self._epoch_of_carried = epoch
        super().begin_epoch(epoch)

    def begin_micro_batch(self, update_num: int, dummy_batch: bool) -> None:
        """An update that is tried again (after an overflow) starts from the same δ again."""
        super().begin_micro_batch(update_num, dummy_batch)
        if update_num != self._carried_to:
            self.carried, self.moved = self.moved, CarriedPerturbations()
            self._carried_to, self._saved = update_num, {}

    def before_save(self, end_of_epoch: bool) -> None:
        moved = [] if end_of_epoch else gather_on_first_rank(self.moved.state_dict())
        self._saved = {"moved": moved, "epoch": self.epoch} if any(moved) else {}

    def checkpoint_state(self) -> Dict[str, Any]:
        """δ of the samples of the last update, of all ranks: 8 · D bytes for each pair of a source and target token."""
        return self._saved

    # ---- one batch ----------------------------------------------------------------------------------------

    def keeps(self) -> str:
        return "--criterion freeat_* carries perturbations by sample id"

    def needs_gradients_between(self) -> bool:
        return True

    def num_backwards(self) -> int:
        return 1

    def drives_backward(self) -> bool:
        """Always where δ is used: its next value comes from the backward pass."""
        return self.is_active()

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        ascent, ids = ascent_of(self.cfg, self.radius(1.0)), batch.ids_on_cpu
        return freeat_term(
            batch.passes,
            batch.loss,
            self._present_delta(batch),
            ascent.ball,
            ascent.step_size,
            lambda delta: self.moved.put(ids, delta),
            batch.log,
        )

    def _present_delta(self, batch: TrainingBatch) -> Perturbation:
        """Where the last replay left δ, and a random start for samples that had none."""
        ascent, passes = ascent_of(self.cfg, self.radius(1.0)), batch.passes
        start = ascent.start(passes, stream=self.epoch)
        carried, found = self.carried.take(batch.ids_on_cpu, start)
        return carried.map(ascent.ball.project).where(found, start)
