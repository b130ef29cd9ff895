"""How a criterion learns what fairseq tells only the task: the update, the epoch, dummy batches, checkpoints.

The trainer talks to the task. :func:`attach` puts small wrappers on the *instance* of whatever task is in
use, so that a criterion works with fairseq's own ``--task translation`` as with ours and no class is patched.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, List, Optional

from fairseq.tasks import FairseqTask

logger = logging.getLogger(__name__)

_PER_PAIR = "_per_lang_pair_train_loss"  # multilingual_translation: one batch of its dictionary of batches

STATE_KEY = "fairseq_adv"  # extra_state[<task class>][STATE_KEY] of a checkpoint
START_KEY = "fairseq_adv_start"  # what is known of plain training's plateau, there too


class TrainingLifecycle:
    """The calls that :func:`attach` makes on a criterion; each does nothing by default."""

    update_num: int = 0
    epoch: int = 1
    dummy_batch: bool = False
    inside_epoch: bool = False  # whether the epoch that begins is entered behind its first update, by a resume

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        """Every rank, once, after the checkpoint (if any) was loaded; *state* is what was saved, or ``None``."""

    def begin_epoch(self, epoch: int) -> None:
        """Every rank, before the first update of *epoch* (1-based) and again after a resume inside it.

        ``update_num`` is by then that of the coming update, and ``inside_epoch`` tells such a resume.
        """
        self.epoch = epoch

    def end_epoch(self, validation: Optional[float], maximize: bool, update_num: int) -> None:
        """Every rank, after an epoch's checkpoint was written, when *update_num* updates were made in all.

        *validation* is the value of ``--best-checkpoint-metric`` at the epoch's end (``None``: no validation there),
        the higher the better if *maximize*. Called for a criterion that has a :meth:`start_state` alone.
        """

    def begin_micro_batch(self, update_num: int, dummy_batch: bool) -> None:
        """Every rank, before each forward pass of training; a dummy batch only keeps the ranks in step."""
        self.update_num, self.dummy_batch = update_num, dummy_batch

    def begin_pass(self, model: Any) -> None:
        """Every rank, after that, with the *model* that the trainer hands to the task."""

    def foreseer(self, dataset: Any) -> Optional[Callable[[Any], None]]:
        """What is to be called with each coming micro-batch of *dataset*, on the CPU; asked as an epoch begins.

        It may add to the batch. ``None``: nothing is to be known beforehand.
        """
        return None

    def drives_backward(self) -> bool:
        """Whether the coming batch goes to :meth:`train_step` instead of the task's own."""
        return False

    def train_step(self, sample: Dict[str, Any], model: Any, optimizer: Any, update_num: int) -> Any:
        """Forward and backward passes of one batch; returns loss, sample size and log."""
        raise NotImplementedError

    def before_save(self, end_of_epoch: bool) -> None:
        """Every rank, before a checkpoint is written; may communicate."""

    def checkpoint_state(self) -> Dict[str, Any]:
        """Rank 0, while a checkpoint is written: plain containers and numbers for :meth:`begin_training`."""
        return {}

    def start_state(self) -> Dict[str, Any]:
        """Rank 0, while a checkpoint is written: what :meth:`end_epoch` has found out, for :meth:`load_start_state`."""
        return {}

    def load_start_state(self, state: Dict[str, Any]) -> None:
        """Every rank, when training goes on from a checkpoint."""


def attach(task: Any, lifecycle: TrainingLifecycle) -> None:
    """Route *task*'s calls to *lifecycle* too; attaching another one replaces the first."""
    cls = type(task)
    trainers: List[Any] = []  # the trainer of this run, once it is known
    position: Dict[str, Any] = {"end_of_epoch": False, "resumed_inside": None}

    def train_step(sample, model, criterion, optimizer, update_num, ignore_grad=False, **kwargs):
        lifecycle.begin_micro_batch(update_num, ignore_grad)
        lifecycle.begin_pass(model)
        if lifecycle.drives_backward() and not hasattr(cls, _PER_PAIR):
            return lifecycle.train_step(sample, model, optimizer, update_num)
        return cls.train_step(task, sample, model, criterion, optimizer, update_num, ignore_grad, **kwargs)

    def train_pair(lang_pair, model, update_num, criterion, sample, optimizer, ignore_grad):
        """One of the batches of a task whose batch is a dictionary of them."""
        if lifecycle.drives_backward():
            return lifecycle.train_step(sample[lang_pair], model.models[lang_pair], optimizer, update_num)
        return getattr(cls, _PER_PAIR)(task, lang_pair, model, update_num, criterion, sample, optimizer, ignore_grad)

    def get_batch_iterator(dataset: Any, *args: Any, **kwargs: Any) -> Any:
        iterator = cls.get_batch_iterator(task, dataset, *args, **kwargs)
        iterator.foreseer = lambda: lifecycle.foreseer(dataset)  # what compat's tell_of_coming_batches asks for
        return iterator

    def begin_epoch(epoch: int, model: Any) -> None:
        cls.begin_epoch(task, epoch, model)
        if trainers:  # what the last micro-batch was told is one behind, and a resumed run has been told nothing
            lifecycle.update_num = trainers[-1].get_num_updates()
        lifecycle.inside_epoch = epoch == position["resumed_inside"]
        lifecycle.begin_epoch(epoch)

    def get_checkpoint_dict() -> Dict[str, Any]:
        own = cls.get_checkpoint_dict(task) if hasattr(cls, "get_checkpoint_dict") else {}
        mine = {**own.get(cls.__name__, {}), STATE_KEY: lifecycle.checkpoint_state()}
        if start := lifecycle.start_state():
            mine[START_KEY] = {**start, "end_of_epoch": position["end_of_epoch"]}
        return {**own, cls.__name__: mine}

    def before_save_checkpoint(trainer: Any, epoch_itr: Any) -> None:
        position["end_of_epoch"] = epoch_itr.end_of_epoch()
        lifecycle.before_save(epoch_itr.end_of_epoch())

    def after_load_checkpoint(trainer: Any, extra_state: Optional[Dict[str, Any]], reset: bool) -> None:
        if hasattr(cls, "after_load_checkpoint"):
            cls.after_load_checkpoint(task, trainer, extra_state, reset)
        trainers[:], state = [trainer], extra_state or {}
        position["resumed_inside"] = None if reset else entered_epoch(state)
        saved = state.get(cls.__name__, {}).get(STATE_KEY)
        if reset and saved:
            logger.info("epochs are counted anew: what the checkpoint knows of perturbations is left behind")
        lifecycle.begin_training(trainer, None if reset else saved)
        if lifecycle.start_state():
            begun = None if reset else state.get(cls.__name__, {}).get(START_KEY)
            go_on_from(begun, state.get("val_loss"), lifecycle, trainer)

    saving = get_checkpoint_dict, before_save_checkpoint, after_load_checkpoint
    for wrapper in (train_step, get_batch_iterator, begin_epoch, *saving):
        setattr(task, wrapper.__name__, wrapper)
    if hasattr(cls, _PER_PAIR):
        setattr(task, _PER_PAIR, train_pair)


def entered_epoch(extra_state: Dict[str, Any]) -> Optional[int]:
    """The epoch in whose middle a checkpoint was written, if it was."""
    iterator = extra_state.get("train_iterator", {})
    return iterator["epoch"] if iterator.get("iterations_in_epoch", 0) > 0 else None


def go_on_from(
    begun: Optional[Dict[str, Any]], validation: Optional[float], lifecycle: TrainingLifecycle, trainer: Any
) -> None:
    """Tell *lifecycle* of each epoch's validation, and what a checkpoint had *begun* to find out from them."""
    end_epoch = follow_validation(trainer, lifecycle)
    if begun:
        lifecycle.load_start_state(begun)
        if begun["end_of_epoch"]:  # the checkpoint was written between its validation and the count of it
            end_epoch(validation)


def refuse_own_backward(task: Any) -> None:
    """Raise ``ValueError`` for a *task* that runs forward and backward passes by itself, which a criterion would do."""
    cls = type(task)
    if isinstance(task, FairseqTask) and cls.train_step is not FairseqTask.train_step and not hasattr(cls, _PER_PAIR):
        raise ValueError(
            f"--task {getattr(cls, '_name', None) or cls.__name__} runs the backward pass of its batches itself, but "
            "this method takes several of them with gradients between; choose a method with one backward pass, such as "
            "r3f without --adv-detach-clean, or another task"
        )


def follow_validation(trainer: Any, lifecycle: TrainingLifecycle) -> Callable[[Optional[float]], None]:
    """Have *lifecycle* told of each epoch's validation; returns how to tell it of one that is over.

    Fairseq hands the value to the learning rate's schedule alone, on every rank and once an epoch, so the wrapper is
    around that call. Raises ``ValueError`` where there will be none.
    """
    cls = type(trainer)
    if trainer.cfg.dataset.disable_validation:
        raise ValueError(
            "--adv-start-update auto begins where validations have stopped getting better, but --disable-validation "
            "leaves them out, so that training would stay plain: drop it, or give a number of updates"
        )
    maximize = bool(trainer.cfg.checkpoint.maximize_best_checkpoint_metric)

    def end_epoch(value: Optional[float]) -> None:
        lifecycle.end_epoch(value, maximize, trainer.get_num_updates())

    def lr_step(epoch: int, val_loss: Optional[float] = None) -> Any:
        rate = cls.lr_step(trainer, epoch, val_loss)
        end_epoch(val_loss)
        return rate

    trainer.lr_step = lr_step
    return end_epoch
