"""FreeAT against an independent implementation: K updates on one batch, each of which moves θ and δ."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import (
    assert_matches,
    make_criterion,
    noise_in_columns,
    plain_criterion,
    run_update,
    same_bits,
)
from tests.unit.toy_models import as_namespace, toy_batch, toy_model, toy_task

EPSILON, ETA, RATE = 0.5, 0.2, 0.05


def freeat(task=None, **options):
    return make_criterion("freeat_label_smoothed", task, adv_eps=EPSILON, adv_step_size=ETA, **options)


def descend(model, update, tokens):
    """One step of plain gradient descent on *update*."""
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), update.gradients):
            parameter -= RATE * gradient / tokens


def rows_of(batch, rows):
    """The sentences *rows* of *batch* as a batch, padded as before."""
    inputs = {key: value[rows] for key, value in batch["net_input"].items()}
    target = batch["target"][rows]
    tokens = int(target.ne(ref.PAD).sum())
    return {"id": batch["id"][rows], "nsentences": len(rows), "ntokens": tokens, "net_input": inputs, "target": target}


class Reference:
    """CE(x + δ) of the present replay, and δ after it."""

    def __init__(self, model, batch, sides=("src", "tgt")):
        self.model, self.batch = model, batch
        noise = noise_in_columns("uniform", batch, sides)
        self.delta = ref.each_sentence(noise, batch, lambda words: ref.of_norm(words, EPSILON))

    def loss_at(self, delta):
        return ref.cross_entropy(ref.output(self.model, self.batch, delta), self.batch)

    def move(self):
        gradient = ref.gradient_at(self.delta, self.loss_at)
        self.delta = ref.step(self.delta, gradient, self.batch, ETA, EPSILON)


@pytest.mark.parametrize("name", ["transformer", "transformer_shared"])
@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
def test_three_replays(name, sides):
    model, batch = toy_model(name).double(), toy_batch()
    criterion, reference = freeat(adv_sides="both" if len(sides) == 2 else sides[0]), Reference(model, batch, sides)
    for update_num in range(3):
        start = {side: values.clone() for side, values in reference.delta.items()}
        update = run_update(criterion, model, [batch], update_num)
        expected = reference.loss_at(reference.delta)
        assert_matches(update, model, expected)
        assert update.log["adv_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
        reference.move()
        assert any((reference.delta[side] - start[side]).abs().max() > 1e-3 for side in sides)
        descend(model, update, batch["ntokens"])


def test_perturbations_belong_to_samples_not_to_batches():
    """The replay's micro-batches are cut otherwise than the first update's."""
    model, batch = toy_model().double(), toy_batch()
    criterion, reference = freeat(), Reference(model, batch)
    cuts = [[[0, 1, 2]], [[2, 0], [1]], [[1, 2], [0]]]
    for update_num, cut in enumerate(cuts):
        update = run_update(criterion, model, [rows_of(batch, rows) for rows in cut], update_num)
        assert_matches(update, model, reference.loss_at(reference.delta))
        reference.move()


def test_the_next_batch_and_the_next_epoch_start_anew():
    model, first, second = toy_model().double(), toy_batch(), toy_batch((2, 4), (5, 1), seed=3, first_id=3)
    criterion = freeat()
    run_update(criterion, model, [first], 0)
    reference = Reference(model, second)
    assert_matches(run_update(criterion, model, [second], 1), model, reference.loss_at(reference.delta))
    anew = freeat()
    anew.begin_epoch(2)
    expected = run_update(anew, model, [second], 2)
    criterion.begin_epoch(2)
    assert same_bits(run_update(criterion, model, [second], 2), expected)
    criterion.begin_epoch(2)  # as after a resume inside the epoch: nothing is forgotten
    assert not same_bits(run_update(criterion, model, [second], 3), expected)


def test_an_update_that_is_tried_again_starts_from_the_same_perturbation():
    model, batch = toy_model(), toy_batch()
    once, twice = freeat(), freeat()
    for criterion in (once, twice):
        run_update(criterion, model, [batch], 0)
    first_try, second_try = (run_update(twice, model, [batch], 1) for _ in range(2))
    assert same_bits(first_try, second_try) and same_bits(first_try, run_update(once, model, [batch], 1))
    assert same_bits(run_update(twice, model, [batch], 2), run_update(once, model, [batch], 2))


def test_checkpoint_between_two_replays():
    model, batches = toy_model(), [toy_batch(), toy_batch((2, 6), (3, 1), seed=4, first_id=3)]
    criterion, resumed, forgetful = freeat(), freeat(), freeat()
    run_update(criterion, model, batches, 0)
    criterion.before_save(end_of_epoch=False)
    trainer = SimpleNamespace(
        cfg=as_namespace(distributed_training=as_namespace(ddp_backend="legacy_ddp")), get_model=lambda: model
    )
    resumed.task.replay_updates = lambda count, start: None
    resumed.begin_training(trainer, criterion.checkpoint_state())
    resumed.begin_epoch(1)
    expected = run_update(criterion, model, batches, 1)
    assert same_bits(run_update(resumed, model, batches, 1), expected)
    assert not same_bits(run_update(forgetful, model, batches, 1), expected)
    criterion.before_save(end_of_epoch=True)
    assert criterion.checkpoint_state() == {}


def test_one_replay_without_radius_is_plain_training():
    model, batches = toy_model(dropout=0.3), [toy_batch(), toy_batch((2, 6), (3, 1), seed=4, first_id=3)]
    ours = run_update(freeat(adv_radius_schedule="0@0", freeat_replays=1), model, batches)
    assert same_bits(ours, run_update(plain_criterion(), model, batches))


def test_sentences_without_a_finite_gradient_are_counted_and_start_from_zero():
    model, batch = toy_model(), toy_batch()
    criterion = freeat()
    criterion.begin_micro_batch(0, dummy_batch=False)
    broken = SimpleNamespace(backward=lambda loss: (loss * float("nan")).backward())
    log = criterion.train_step(batch, model, broken, 0)[2]
    assert log["adv_nonfinite"] == 3
    model.zero_grad()
    assert run_update(criterion, model, [batch], 1).log["adv_norm_src"] == 0


def test_replays_are_asked_of_the_task():
    asked = []
    task = toy_task()
    task.replay_updates = lambda count, start: asked.append((count, start))
    freeat(task, freeat_replays=4, adv_start_update=7)
    assert asked == [(4, 7)]
    freeat(task, adv_lambda=0.0)
    freeat(task, freeat_replays=1)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeat_replays": 0}, r"--freeat-replays must be >= 1, got 0"),
        ({"adv_steps": 3}, r"--adv-steps must be 1 .*--freeat-replays.*got 3"),
        ({"adv_lambda": 0.5}, r"--adv-lambda must be 0 .*or 1.*got 0.5"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        freeat(**options)
