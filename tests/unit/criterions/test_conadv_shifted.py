"""ConAdv one batch behind against an independent implementation, and what either mode refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, List

import pytest
import torch

from tests.unit.criterions.conadv_reference import (
    descend,
    gradient_step,
    loss_of,
    shifted,
    task_that_tells,
    trainer_of,
    updates_of_an_epoch,
)
from tests.unit.criterions.updates import assert_matches, make_criterion, plain_criterion, run_update, same_bits
from tests.unit.toy_models import toy_batch, toy_model


def test_shifted_trains_each_perturbed_batch_one_update_later():
    model, epoch = toy_model().double(), updates_of_an_epoch()
    criterion = shifted(model)
    waiting: List[Any] = []
    for number, batches in enumerate(epoch):
        update = run_update(criterion, model, batches, number)
        halves = [loss_of(model, b, {}) for b in batches] + [loss_of(model, b, d) for b, d in waiting]
        assert_matches(update, model, sum(halves) / 2)
        waiting = [(batch, gradient_step(model, batch)) for batch in batches]
        descend(model, SimpleNamespace(gradients=update.gradients, log={"sample_size": 20.0}))


def test_shifted_divides_by_the_mean_of_both_batches():
    """Every target token weighs the same, whichever batch it is of."""
    model, epoch = toy_model().double(), updates_of_an_epoch()
    criterion, sizes = shifted(model), []
    optimizer = SimpleNamespace(backward=lambda loss: loss.backward())
    for number, batches in enumerate(epoch):
        sizes.append(0.0)
        for batch in batches:
            criterion.begin_micro_batch(number, dummy_batch=False)
            _, size, log = criterion.train_step(batch, model, optimizer, number)
            assert size == log["sample_size"]
            sizes[-1] += size
    tokens = [sum(batch["ntokens"] for batch in batches) for batches in epoch]
    assert len(set(tokens)) > 2
    assert sizes == [tokens[0] / 2, *((a + b) / 2 for a, b in zip(tokens, tokens[1:]))]


def test_shifted_first_update_is_plain_training():
    model, batch = toy_model(dropout=0.3), toy_batch()
    ours, plain = (run_update(c, model, [batch]) for c in (shifted(model), plain_criterion()))
    assert all(torch.equal(2 * a, b) for a, b in zip(ours.gradients, plain.gradients))
    assert 2 * ours.log["sample_size"] == batch["ntokens"]


def test_shifted_update_that_is_tried_again():
    model, epoch = toy_model(), updates_of_an_epoch()
    results = []
    for tries in (1, 3):
        criterion = shifted(model)
        run_update(criterion, model, epoch[0], 0)
        attempts = []
        for _ in range(tries):
            criterion.train()  # as the trainer does
            attempts.append(run_update(criterion, model, epoch[1], 1))
        assert all(same_bits(attempts[0], attempt) for attempt in attempts)
        results.append((attempts[-1], run_update(criterion, model, epoch[2], 2)))
    assert same_bits(results[0][0], results[1][0]) and same_bits(results[0][1], results[1][1])


def test_shifted_keeps_what_waits_over_dummy_batches_and_plain_updates():
    model, epoch = toy_model(), updates_of_an_epoch()
    direct = shifted(model)
    run_update(direct, model, epoch[0], 0)
    expected = run_update(direct, model, epoch[1], 4)
    over_dummy = shifted(model)
    run_update(over_dummy, model, epoch[0], 0)
    over_dummy.begin_micro_batch(1, dummy_batch=True)
    assert not over_dummy.drives_backward()
    assert same_bits(run_update(over_dummy, model, epoch[1], 4), expected)
    over_plain = shifted(model, adv_every=4)
    run_update(over_plain, model, epoch[0], 0)
    assert same_bits(run_update(over_plain, model, epoch[2], 1), run_update(plain_criterion(), model, epoch[2], 1))
    assert same_bits(run_update(over_plain, model, epoch[1], 4), expected)


def test_shifted_forgets_at_the_end_of_an_epoch():
    model, epoch = toy_model(), updates_of_an_epoch()
    criterion, anew = shifted(model), shifted(model)
    run_update(criterion, model, epoch[0], 0)
    for each in (criterion, anew):
        each.begin_epoch(2)
    assert same_bits(run_update(criterion, model, epoch[1], 1), run_update(anew, model, epoch[1], 1))


def test_shifted_resumes_with_what_waits():
    model, epoch = toy_model(), updates_of_an_epoch()
    criterion = shifted(model)
    run_update(criterion, model, epoch[1], 0)
    criterion.before_save(end_of_epoch=False)
    state = criterion.checkpoint_state()
    expected = run_update(criterion, model, epoch[2], 1)
    assert same_bits(run_update(shifted(model, state), model, epoch[2], 1), expected)
    assert not same_bits(run_update(shifted(model), model, epoch[2], 1), expected)


def test_a_task_that_cannot_look_ahead_is_refused():
    criterion = make_criterion("conadv_label_smoothed")
    with pytest.raises(ValueError, match=r"ToyTask.*--task adversarial_translation.*--conadv-mode shifted"):
        criterion.begin_training(trainer_of(toy_model()), None)
    make_criterion("conadv_label_smoothed", adv_lambda=0.0).begin_training(trainer_of(toy_model()), None)


def test_a_model_whose_passes_move_buffers_cannot_be_run_beside_the_update():
    model, task = toy_model(), task_that_tells([[]])
    model.encoder.layers[0].fc1 = torch.nn.utils.spectral_norm(model.encoder.layers[0].fc1)
    with pytest.raises(ValueError, match=r"TransformerModel moves its buffers .*--conadv-mode shifted"):
        make_criterion("conadv_label_smoothed", task).begin_training(trainer_of(model), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conadv_alpha": -1.0}, r"--conadv-alpha must be finite and >= 0, got -1"),
        ({"adv_lambda": 2.0}, r"--adv-lambda must be 0 .*or 1.*got 2"),
        ({"conadv_mode": "shifted", "adv_passes": "concat"}, r"--adv-passes concat .*lookahead"),
        ({"conadv_mode": "shifted", "adv_outer_masks": "shared"}, r"--adv-outer-masks shared .*lookahead"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_criterion("conadv_label_smoothed", **options)
