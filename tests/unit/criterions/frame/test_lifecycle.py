"""What a criterion is told of updates and epochs: the same in a run that goes on as after a resume."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fairseq_adv.criterions.frame.lifecycle import TrainingLifecycle, attach
from tests.unit.toy_models import toy_task


class Recorder(TrainingLifecycle):
    def __init__(self):
        self.epochs = []

    def begin_epoch(self, epoch):
        super().begin_epoch(epoch)
        self.epochs.append((epoch, self.update_num))


@pytest.mark.parametrize("resumed", [False, True])
def test_an_epoch_begins_at_the_same_update_whether_or_not_the_run_was_resumed(resumed):
    """29 updates in the first epoch; the last micro-batch of a run that goes on was told 28."""
    task, recorder = toy_task(), Recorder()
    type(task).train_step = lambda *_, **__: None
    attach(task, recorder)
    task.after_load_checkpoint(SimpleNamespace(get_num_updates=lambda: 29), None, False)
    if not resumed:
        task.train_step({}, None, None, None, 28)
    task.begin_epoch(2, None)
    assert recorder.epochs == [(2, 29)]
