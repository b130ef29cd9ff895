"""ConAdv by loops: its updates, the steps of both modes, and criterions that are told what comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List

import torch

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import make_criterion
from tests.unit.toy_models import as_namespace, toy_batch, toy_task

ALPHA, RATE = 0.4, 0.5


def updates_of_an_epoch():
    """Four updates of one to three micro-batches of different sizes."""
    shapes: List[List[Any]] = [
        [((5, 3), (4, 2))],
        [((1,), (6,)), ((2, 7), (3, 3))],
        [((3,), (2,)), ((4,), (8,)), ((6, 2), (1, 5))],
    ]
    shapes.append([((4, 4), (5, 1))])
    batches: List[List[Dict[str, Any]]] = []
    first_id = 0
    for number, micro_batches in enumerate(shapes):
        batches.append([])
        for src, tgt in micro_batches:
            batches[-1].append(toy_batch(src, tgt, seed=10 * number + first_id, first_id=first_id))
            first_id += len(src)
    return batches


def loss_of(model, batch, delta):
    return ref.cross_entropy(ref.output(model, batch, delta), batch)


def gradient_step(model, batch):
    """α g/‖g‖ of each sentence and side, g the gradient of its own loss at x."""
    gradient = ref.gradient_at(ref.zeros(model, batch), lambda delta: loss_of(model, batch, delta))
    return ref.each_sentence(gradient, batch, lambda words: ref.of_norm(words, ALPHA))


def descend(model, update):
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), update.gradients):
            parameter -= RATE * gradient / update.log["sample_size"]


def trainer_of(model):
    return SimpleNamespace(
        cfg=as_namespace(distributed_training=as_namespace(ddp_backend="legacy_ddp")),
        get_model=lambda: model,
        _prepare_sample=lambda sample: (sample, False),
    )


def task_that_tells(upcoming):
    """A task whose next update is ``upcoming[0]`` and whose present one has ``upcoming[1]`` micro-batches (or one)."""
    task = toy_task()
    task.upcoming_batches = lambda: upcoming[0]
    task.present_size = lambda: upcoming[1] if len(upcoming) > 1 else 1
    return task


def lookahead(model, upcoming, state=None, **options):
    criterion = make_criterion("conadv_label_smoothed", task_that_tells(upcoming), conadv_alpha=ALPHA, **options)
    criterion.begin_training(trainer_of(model), state)
    criterion.begin_epoch(1)
    return criterion


def shifted(model, state=None, **options):
    options = {"conadv_mode": "shifted", "conadv_alpha": ALPHA, **options}
    criterion = make_criterion("conadv_label_smoothed", **options)
    criterion.begin_training(trainer_of(model), state)
    criterion.begin_epoch(1)
    return criterion
