"""ConAdv's equations as they stand in the paper: raw gradients, random starts and delays above one."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
import torch

from fairseq_adv.methods.conadv import one_step
from tests.unit.criterions import reference as ref
from tests.unit.criterions.conadv_reference import (
    ALPHA,
    descend,
    gradient_step,
    lookahead,
    loss_of,
    updates_of_an_epoch,
)
from tests.unit.criterions.updates import assert_matches, make_criterion, noise_in_columns, run_update
from tests.unit.toy_models import toy_model


def step_by_hand(model, batch, start_norm, raw):
    """start + α g (raw), or its normalised step projected on the ball of α, sentence by sentence."""
    noise = noise_in_columns("uniform", batch)
    start = ref.each_sentence(noise, batch, lambda words: ref.of_norm(words, start_norm) if start_norm else 0 * words)
    gradient = ref.gradient_at(start, lambda delta: loss_of(model, batch, delta))
    if raw:
        return ref.each_sentence(start, batch, lambda d, g: d + ALPHA * g, gradient)

    def step(d, g):
        moved = d + ref.of_norm(g, ALPHA)
        return moved * min(1.0, ALPHA / float(moved.norm()))

    return ref.each_sentence(start, batch, step, gradient)


@pytest.mark.parametrize("start_norm", [0.0, 0.3])
@pytest.mark.parametrize("raw", [False, True])
def test_one_step_by_hand(start_norm, raw):
    model, (batches, *_) = toy_model().double(), updates_of_an_epoch()
    options = {"conadv_start_norm": start_norm, "conadv_gradient": "raw" if raw else "normalised"}
    update = run_update(lookahead(model, [[]], **options), model, batches)
    deltas = [step_by_hand(model, batch, start_norm, raw) for batch in batches]
    losses = [(loss_of(model, b, {}) + loss_of(model, b, d)) / 2 for b, d in zip(batches, deltas)]
    assert_matches(update, model, sum(losses))
    if not raw:
        assert update.log["adv_norm_src"] <= 2 * ALPHA + 1e-5  # two sentences


@pytest.mark.parametrize("delay", [2, 3])
def test_gradients_that_are_some_updates_old(delay):
    model, epoch = toy_model().double(), updates_of_an_epoch()
    upcoming = [[], 1]
    criterion = lookahead(model, upcoming, conadv_delay=delay)
    taken: Dict[Any, Any] = {}
    for number, batches in enumerate(epoch):
        later = number + delay
        upcoming[:] = [epoch[later] if later < len(epoch) else [], len(batches)]
        deltas = taken.get(number, [gradient_step(model, batch) for batch in batches])  # on the spot at first
        if later < len(epoch):
            taken[later] = [gradient_step(model, batch) for batch in epoch[later]]
        update = run_update(criterion, model, batches, number)
        losses = [(loss_of(model, b, {}) + loss_of(model, b, d)) / 2 for b, d in zip(batches, deltas)]
        assert_matches(update, model, sum(losses))
        descend(model, update)
    assert set(taken) == set(range(delay, len(epoch)))


def test_a_resume_goes_on_with_every_line():
    model, epoch = toy_model(), updates_of_an_epoch()
    upcoming = [epoch[2]]
    criterion = lookahead(model, upcoming, conadv_delay=2)
    descend(model, run_update(criterion, model, epoch[0], 0))
    upcoming[0] = epoch[3]
    descend(model, run_update(criterion, model, epoch[1], 1))
    criterion.before_save(end_of_epoch=False)
    state = criterion.checkpoint_state()

    def two_updates(criterion, upcoming):
        losses = []
        for number in (2, 3):
            upcoming[0] = []  # a new list: another update
            losses.append(run_update(criterion, model, epoch[number], number).loss)
        return torch.stack(losses)

    told: List[Any] = [[]]
    expected = two_updates(criterion, upcoming)
    assert torch.equal(two_updates(lookahead(model, told, state, conadv_delay=2), told), expected)
    told = [[]]
    assert not torch.equal(two_updates(lookahead(model, told, conadv_delay=2), told), expected)


def test_a_raw_step_undoes_the_scale_of_the_loss():
    model, ((batch,), *_) = toy_model(), updates_of_an_epoch()
    criterion = lookahead(model, [[]], conadv_gradient="raw")
    opened = criterion.open_batch(model, batch)

    def loss(scale):
        def of(delta):
            with criterion.hook(model).adding(delta):
                return opened.loss(opened.bare_pass()) * scale

        return of

    plain, scaled = (one_step(loss(s), opened.passes.zero(), 0.5, None, False, s)[0] for s in (1.0, 64.0))
    for side in plain.sides:
        torch.testing.assert_close(plain.values[side], scaled.values[side], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conadv_start_norm": 0.5}, r"--conadv-start-norm must be in \[0, --conadv-alpha\].*got 0\.5"),
        ({"conadv_start_norm": -1.0, "conadv_gradient": "raw"}, "--conadv-start-norm must be finite and >= 0, got -1"),
        ({"conadv_delay": 0}, "--conadv-delay must be >= 1, got 0"),
        ({"conadv_mode": "shifted", "conadv_gradient": "raw"}, "--conadv-gradient raw: --conadv-mode shifted"),
        ({"conadv_mode": "shifted", "conadv_delay": 2}, "--conadv-delay: --conadv-mode shifted"),
        ({"conadv_mode": "shifted", "conadv_placement": "spare"}, "--conadv-placement spare: --conadv-mode shifted"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        make_criterion("conadv_label_smoothed", **options)
