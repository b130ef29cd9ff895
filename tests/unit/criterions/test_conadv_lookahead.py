"""ConAdv that looks ahead against an independent implementation, update by update with changing parameters."""

from __future__ import annotations

from typing import Any, List

import pytest
import torch
import torch.nn.functional as F

from fairseq_adv.criterions.frame.look_ahead import LookAhead
from fairseq_adv.perturb import Perturbation
from tests.unit.criterions.conadv_reference import (
    descend,
    gradient_step,
    lookahead,
    loss_of,
    updates_of_an_epoch,
)
from tests.unit.criterions.updates import assert_matches, plain_criterion, run_update, same_bits
from tests.unit.toy_models import toy_model


@pytest.mark.parametrize("passes", ["sequential", "concat"])
@pytest.mark.parametrize("name", ["transformer", "transformer_shared"])
def test_lookahead_perturbs_by_a_gradient_under_the_parameters_of_one_update_before(name, passes):
    model, epoch = toy_model(name).double(), updates_of_an_epoch()
    upcoming: List[Any] = [[], 1]
    criterion = lookahead(model, upcoming, adv_passes=passes)
    deltas = [gradient_step(model, batch) for batch in epoch[0]]  # the first update has none from before
    for number, batches in enumerate(epoch):
        upcoming[:] = [epoch[number + 1] if number + 1 < len(epoch) else [], len(batches)]
        following = [gradient_step(model, batch) for batch in upcoming[0]]
        update = run_update(criterion, model, batches, number)
        losses = [(loss_of(model, b, {}) + loss_of(model, b, d)) / 2 for b, d in zip(batches, deltas)]
        assert_matches(update, model, sum(losses))
        if number > 0:  # a fresh gradient would be another one
            fresh = gradient_step(model, batches[0])
            assert max((fresh[s] - deltas[0][s]).abs().max() for s in fresh) > 1e-2
        deltas = following
        descend(model, update)


def test_lookahead_steps_on_the_spot_where_nothing_was_taken_ahead():
    model, epoch = toy_model().double(), updates_of_an_epoch()
    criterion = lookahead(model, [[]])
    for number, batches in enumerate(epoch):
        update = run_update(criterion, model, batches, number)
        losses = [(loss_of(model, b, {}) + loss_of(model, b, gradient_step(model, b))) / 2 for b in batches]
        assert_matches(update, model, sum(losses))
        descend(model, update)


@pytest.mark.parametrize("passes", ["sequential", "concat"])
def test_lookahead_is_queued_behind_the_clean_pass(passes):
    """Only then can a GPU run both at once."""
    model, epoch, sentences = toy_model(), updates_of_an_epoch(), []
    model.encoder.register_forward_pre_hook(lambda _, args: sentences.append(len(args[0])))
    criterion = lookahead(model, [epoch[1][:1]], adv_passes=passes)
    run_update(criterion, model, epoch[0][:1], 0)
    present, coming = len(epoch[0][0]["id"]), len(epoch[1][0]["id"])
    on_the_spot, outer = [present], [present, coming, present] if passes == "sequential" else [2 * present, coming]
    assert present != coming and sentences == on_the_spot + outer


@pytest.mark.parametrize(("present", "shares"), [(1, [3]), (2, [2, 1]), (3, [1, 1, 1]), (5, [1, 1, 1, 0, 0])])
def test_lookahead_spreads_over_the_micro_batches_of_an_update(present, shares):
    model, epoch = toy_model(), updates_of_an_epoch()
    criterion = lookahead(model, [epoch[2], present])
    sizes = [0]
    for _ in range(present):
        criterion.begin_micro_batch(0, dummy_batch=False)
        criterion.line.go()
        sizes.append(sum(batch["id"][0].item() in criterion.line.ahead._rows for batch in epoch[2]))
    assert [after - before for before, after in zip(sizes, sizes[1:])] == shares


def test_lookahead_shares_no_half_precision_weights_with_the_passes_beside_it():
    """Autocast's copies belong to the stream that made them: another one may read them before they are written."""
    x, weights = torch.ones(1, 1), [torch.ones(1, 1, requires_grad=True) for _ in range(2)]
    products: List[float] = []

    def multiply(weight):
        products.append(float(F.linear(x, weight)))
        weight.data += 1  # a copy that is kept does not see this

    def compute(batch):
        for weight in weights:
            multiply(weight)
        return batch["id"], Perturbation({}, {}), torch.zeros(1)

    line = LookAhead(compute, torch.device("cpu"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        multiply(weights[0])
        line.begin([{"id": torch.tensor([3])}], 1, wanted=True)
        line.go()
        multiply(weights[1])
    assert products == [1, 2, 1, 2]


def test_lookahead_of_an_update_that_is_tried_again():
    model, epoch = toy_model(), updates_of_an_epoch()
    results = []
    for tries in (1, 3):
        upcoming = [epoch[1]]
        criterion = lookahead(model, upcoming)
        attempts = [run_update(criterion, model, epoch[0], 0) for _ in range(tries)]
        assert all(same_bits(attempts[0], attempt) for attempt in attempts)
        upcoming[0] = epoch[2]
        results.append(run_update(criterion, model, epoch[1], 1))
    assert same_bits(*results)


def test_lookahead_from_a_plain_update_and_from_a_dummy_batch():
    model, epoch = toy_model(dropout=0.2), updates_of_an_epoch()
    results = []
    for before in ("plain", "dummy", "regularised"):
        upcoming = [epoch[1]]
        criterion = lookahead(model, upcoming, adv_start_update=1 if before == "plain" else 0)
        if before == "dummy":
            torch.manual_seed(5)
            criterion.begin_micro_batch(0, dummy_batch=True)
        else:
            run_update(criterion, model, epoch[0], 0)
        assert len(criterion.line.ahead) == 3
        upcoming[0] = []
        results.append(run_update(criterion, model, epoch[1], 1))
    assert same_bits(results[0], results[1]) and same_bits(results[0], results[2])


def test_lookahead_passes_are_not_noticed_by_plain_training():
    model, epoch = toy_model(dropout=0.3), updates_of_an_epoch()
    criterion = lookahead(model, [epoch[1]], adv_start_update=1)
    ours = run_update(criterion, model, epoch[0], 0)
    state = torch.get_rng_state()
    assert same_bits(ours, run_update(plain_criterion(), model, epoch[0], 0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("ahead", [False, True])
def test_lookahead_without_radius_is_twice_half_of_plain_training(ahead):
    model, epoch = toy_model(dropout=0.3), updates_of_an_epoch()
    upcoming = [[epoch[1][1]]]
    criterion = lookahead(model, upcoming, adv_radius_schedule="0@0", adv_outer_masks="shared")
    if ahead:
        run_update(criterion, model, epoch[0], 0)
        upcoming[0] = []
    ours = run_update(criterion, model, [epoch[1][1]], 1)
    assert same_bits(ours, run_update(plain_criterion(), model, [epoch[1][1]], 1))


def test_lookahead_resumes_with_what_was_taken_ahead():
    model, epoch = toy_model(), updates_of_an_epoch()
    upcoming = [epoch[1]]
    criterion = lookahead(model, upcoming)
    descend(model, run_update(criterion, model, epoch[0], 0))
    criterion.before_save(end_of_epoch=False)
    state = criterion.checkpoint_state()
    upcoming[0] = epoch[2]
    expected = run_update(criterion, model, epoch[1], 1)
    assert same_bits(run_update(lookahead(model, upcoming, state), model, epoch[1], 1), expected)
    assert not same_bits(run_update(lookahead(model, upcoming), model, epoch[1], 1), expected)
    criterion.before_save(end_of_epoch=True)
    assert criterion.checkpoint_state() == {}


def test_lookahead_counts_sentences_without_a_finite_gradient():
    model, epoch = toy_model(), updates_of_an_epoch()
    upcoming = [epoch[1]]
    criterion = lookahead(model, upcoming)
    compute = criterion.line._compute

    def broken(batch):
        with torch.no_grad():
            model.encoder.layers[0].fc1.bias.fill_(float("nan"))
        result = compute(batch)
        with torch.no_grad():
            model.encoder.layers[0].fc1.bias.fill_(0.0)
        return result

    criterion.line._compute = broken
    assert run_update(criterion, model, epoch[0], 0).log["adv_nonfinite"] == 3
    upcoming[0] = []
    log = run_update(criterion, model, epoch[1][:1], 1).log
    assert log["adv_nonfinite"] == 0 and log["adv_norm_src"] == 0
