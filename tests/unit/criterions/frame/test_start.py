"""When a method begins: after a number of updates, or at plain training's plateau, across checkpoints too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Sequence

import pytest

from fairseq_adv.criterions.frame.lifecycle import TrainingLifecycle, attach
from fairseq_adv.criterions.frame.start import StartRule


def plateau(values: Sequence[Optional[float]], patience: int, maximize: bool) -> Optional[int]:
    """Reference: the first epoch (1-based) whose last *patience* validations are no better than one before them."""
    sign = 1 if maximize else -1
    for end in range(1, len(values) + 1):
        seen = [sign * value for value in values[:end] if value is not None]
        if values[end - 1] is not None and len(seen) > patience and max(seen[-patience:]) <= max(seen[:-patience]):
            return end
    return None


SERIES = [
    [1.0, 2.0, 3.0, 2.5, 2.0, 3.5, 3.5, 3.4, 3.3],
    [1.0, 1.0, 1.0],
    [None, 4.0, None, 3.0, None, 3.9, None, 3.8],
    [5.0, 4.0, 3.0, 2.0],
    [1.0, 2.0, 3.0, 4.0],
]


@pytest.mark.parametrize("values", SERIES)
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("maximize", [True, False])
def test_auto_starts_where_the_plateau_is(values: List[Optional[float]], patience: int, maximize: bool) -> None:
    rule = StartRule(f"auto:{patience}")
    for epoch, value in enumerate(values, 1):
        rule.validated(value, maximize, 10 * epoch)
    expected = plateau(values, patience, maximize)
    assert rule.update == (None if expected is None else 10 * expected)
    assert rule.has_begun(100) == (expected is not None)


def test_a_number_starts_at_that_update_whatever_the_validations_say() -> None:
    rule = StartRule("7")
    for _ in range(3):
        rule.validated(1.0, True, 3)
    assert [rule.has_begun(update) for update in (6, 7, 8)] == [False, True, True]
    assert [update for update in range(20) if rule.has_begun(update) and rule.is_due(update, 4)] == [7, 11, 15, 19]
    assert rule.state_dict() == {}


@pytest.mark.parametrize("start", ["-1", "1.5", "soon", "auto:0", "auto:", ""])
def test_what_is_neither_is_refused(start: str) -> None:
    with pytest.raises(ValueError, match=f"--adv-start-update must be >= 0, auto or auto:N, got {start}"):
        StartRule(start)


class Waiting(TrainingLifecycle):
    """The part of a criterion that waits."""

    def __init__(self) -> None:
        self.start = StartRule("auto:2")

    def end_epoch(self, validation: Optional[float], maximize: bool, update_num: int) -> None:
        self.start.validated(validation, maximize, update_num)

    def start_state(self) -> Dict[str, Any]:
        return self.start.state_dict()

    def load_start_state(self, state: Dict[str, Any]) -> None:
        self.start.load_state_dict(state)


class Trainer:
    """Fairseq's order of calls at an epoch's end: validate, save, tell the learning rate's schedule."""

    def __init__(self, validates: bool = True) -> None:
        self.updates, self.steps = 0, 0
        checkpoint, dataset = {"maximize_best_checkpoint_metric": True}, {"disable_validation": not validates}
        self.cfg = SimpleNamespace(checkpoint=SimpleNamespace(**checkpoint), dataset=SimpleNamespace(**dataset))

    def get_num_updates(self) -> int:
        return self.updates

    def lr_step(self, epoch: int, val_loss: Optional[float] = None) -> float:
        self.steps += 1
        return 0.1


class Task:
    def begin_epoch(self, epoch: int, model: Any) -> None:
        pass

    def train_step(self, *args: Any) -> None:
        pass


def open_run(checkpoint: Optional[Dict[str, Any]], reset: bool = False) -> tuple[Waiting, Trainer, Any]:
    waiting, trainer = Waiting(), Trainer()
    task: Any = Task()
    attach(task, waiting)
    trainer.updates = (checkpoint or {}).get("updates", 0)
    task.after_load_checkpoint(trainer, checkpoint, reset)
    return waiting, trainer, task


def save(task: Any, trainer: Trainer, value: Optional[float], end_of_epoch: bool = True) -> Dict[str, Any]:
    task.before_save_checkpoint(trainer, SimpleNamespace(end_of_epoch=lambda: end_of_epoch))
    return {"val_loss": value, "updates": trainer.updates, **task.get_checkpoint_dict()}


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_resume_at_any_epoch_starts_at_the_same_update(stop: int) -> None:
    values = [1.0, 3.0, 2.0, 2.5, 9.0]
    checkpoint: Optional[Dict[str, Any]] = None
    waiting, trainer, task = open_run(None)
    for epoch, value in enumerate(values, 1):
        trainer.updates += 10
        checkpoint = save(task, trainer, value)
        if epoch == stop:  # killed before the schedule was told
            waiting, trainer, task = open_run(checkpoint)
        else:
            assert trainer.lr_step(epoch, value) == 0.1
    assert waiting.start.update == 40
    assert open_run(checkpoint, reset=True)[0].start.update is None


def test_a_checkpoint_inside_an_epoch_counts_no_validation() -> None:
    _, trainer, task = open_run(None)
    trainer.lr_step(1, 3.0)
    trainer.lr_step(2, 2.0)
    again, _, _ = open_run(save(task, trainer, 2.0, end_of_epoch=False))
    assert again.start.without_gain == 1 and again.start.update is None


def test_a_run_without_validation_would_wait_for_ever() -> None:
    task: Any = Task()
    attach(task, Waiting())
    with pytest.raises(
        ValueError, match=r"--adv-start-update auto .* --disable-validation .* give a number of updates"
    ):
        task.after_load_checkpoint(Trainer(validates=False), None, False)
