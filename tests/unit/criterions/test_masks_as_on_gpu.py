"""Dropout from a generator of its own, as on a GPU, where the CPU's generator stands still within an update."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import List

import pytest
import torch

from tests.unit.criterions.test_dropout_masks import PASSES
from tests.unit.criterions.updates import make_criterion, run_update
from tests.unit.toy_models import toy_batch, toy_model, toy_task

BATCHES = 4
CASES = {**PASSES, "rdrop_label_smoothed": ({}, "co")}


@pytest.fixture
def passes(monkeypatch):
    """The dropout masks of each forward pass of :func:`update`, hashed; all come from a second generator."""
    second = torch.Generator().manual_seed(9)
    seen: List[tuple] = []

    def dropout(x, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return x
        kept = torch.rand(x.shape, generator=second) >= p
        seen[-1] = (*seen[-1], hash(kept.numpy().tobytes()))
        return x * kept / (1 - p)

    monkeypatch.setattr("fairseq_adv.perturb.rng.generators_of", lambda _: [torch.default_generator, second])
    monkeypatch.setattr("torch.nn.functional.dropout", dropout)
    return seen


def micro_batches():
    """Of equal shapes, so that equal generator states would show as equal masks."""
    return [toy_batch(seed=k, first_id=3 * k) for k in range(BATCHES)]


def model_noted_in(passes):
    model = toy_model(dropout=0.3)
    model.register_forward_pre_hook(lambda *_: passes.append(()))
    return model


@pytest.mark.parametrize("case", CASES)
def test_no_two_micro_batches_share_masks(passes, case):
    options, pattern = CASES[case]
    run_update(make_criterion(case.strip(), **options), model_noted_in(passes), micro_batches())
    groups = [passes[first : first + len(pattern)] for first in range(0, len(passes), len(pattern))]
    assert len(groups) == BATCHES
    for one, other in itertools.combinations(groups, 2):
        assert not set(one) & set(other)
    for group in groups:
        assert [masks == group[0] for masks in group] == [kind == "c" for kind in pattern]


def test_batches_that_wait_have_masks_of_their_own(passes):
    """ConAdv trains all that waited beside the next update's first micro-batch."""
    criterion, model = make_criterion("conadv_label_smoothed", conadv_mode="shifted"), model_noted_in(passes)
    for update in range(2):
        criterion.train()
        run_update(criterion, model, micro_batches(), update)
    assert len(passes) == len(set(passes)) == 3 * BATCHES


def test_gradients_taken_ahead_have_masks_of_their_own(passes):
    task, model = toy_task(), model_noted_in(passes)
    upcoming = micro_batches()
    task.look_ahead, task.upcoming_batches, task.present_size = (lambda *_: None), (lambda: upcoming), (lambda: BATCHES)
    criterion = make_criterion("conadv_label_smoothed", task)
    trainer = SimpleNamespace(
        cfg=SimpleNamespace(distributed_training=SimpleNamespace(ddp_backend="pytorch_ddp")),
        get_model=lambda: model,
        _prepare_sample=lambda sample: (sample, False),
    )
    criterion.begin_training(trainer, None)
    run_update(criterion, model, micro_batches())
    ahead, fresh = passes[2::4], passes[3::4]  # on the spot, clean, taken ahead, perturbed
    assert len(set(ahead)) == len(set(fresh)) == BATCHES and not set(ahead) & set(fresh)
