"""ConAdv against independent implementations of both modes, update by update with changing parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
import torch

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, plain_criterion, run_update, same_bits
from tests.unit.toy_models import as_namespace, toy_batch, toy_model, toy_task

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


# ---- look-ahead -------------------------------------------------------------------------------------------


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


# ---- shifted ----------------------------------------------------------------------------------------------


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


# ---- both -------------------------------------------------------------------------------------------------


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
