"""--adv-fraction: some rows of a batch are regularised, and the loss is on average that of all rows."""

from __future__ import annotations

import pytest
import torch

from fairseq_adv.criterions.frame.config import ascent_of
from fairseq_adv.criterions.frame.part import BatchPart, chosen_rows
from fairseq_adv.methods.worst_case import worst_case_perturbation
from tests.unit.criterions.strong_methods import WITH_DIVERGENCE, method
from tests.unit.criterions.test_sentence_methods import sentence_method
from tests.unit.criterions.updates import SEED, make_criterion, plain_criterion, run_update, same_bits
from tests.unit.sentence_models import sentence_batch, sentence_model, sentence_task
from tests.unit.toy_models import toy_batch, toy_model

METHODS = {**WITH_DIVERGENCE, "rdrop": {"rdrop_alpha": 2.0}}
WAYS = [{}, {"adv_detach_clean": True}, {"adv_passes": "recompute"}]
LONG = (5, 3, 1, 4, 2, 6)  # words of six sentences


def rows_alone(batch, rows):
    """A batch of *rows*, in the columns that they had."""
    inputs = {key: value[rows] for key, value in batch["net_input"].items()}
    return {**batch, "id": batch["id"][rows], "net_input": inputs, "target": batch["target"][rows]}


def of_rows(fraction, whole, own, plain):
    """CE(all) + 1/share · (method's loss − CE)(rows): the method's part of the loss is a sum over rows."""
    return whole + (own - plain) / fraction


def check(make, plain, model, batch, fraction, **options):
    """*make* (options → criterion) has the loss and gradient of its own update on the chosen rows alone."""
    criterion = make(adv_fraction=fraction, **options)
    rows = chosen_rows(batch["id"], fraction, criterion.seed, criterion.epoch)[0].tolist()
    assert 0 < len(rows) < len(batch["id"])
    ours = run_update(criterion, model, [batch])
    alone = rows_alone(batch, rows)
    all_rows, mine, without = (
        run_update(each, model, [sample]) for each, sample in ((plain, batch), (make(**options), alone), (plain, alone))
    )
    expected = of_rows(fraction, all_rows.loss, mine.loss, without.loss)
    assert ours.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert abs(ours.loss - all_rows.loss).item() > 1e-3
    for got, a, b, c in zip(ours.gradients, all_rows.gradients, mine.gradients, without.gradients):
        torch.testing.assert_close(got, of_rows(fraction, a, b, c), rtol=1e-4, atol=1e-5)  # log-probs are fp32
    assert ours.log["adv_regularised"] == len(rows) and ours.log["adv_sentences"] == len(batch["id"])
    assert ours.log["adv_loss"].item() == pytest.approx(mine.log["adv_loss"].item() / fraction)
    for key in ("adv_norm_src", "adv_norm_tgt"):
        assert ours.log[key].item() == pytest.approx(mine.log[key].item(), rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("options", WAYS)
def test_the_loss_is_that_of_the_chosen_rows_divided_by_their_share(name, options):
    batch, model = toy_batch(LONG, LONG[::-1]), toy_model("transformer_shared").double()

    def make(**more):
        return method(name, batch, **METHODS[name], **more)

    for fraction in (0.5, 0.7):
        check(make, plain_criterion(), model, batch, fraction, **options)


@pytest.mark.parametrize("name", ["r3f", "rdrop", "smart", "arch"])
@pytest.mark.parametrize("classes", [3, 1])
def test_sentences_too(name, classes):
    batch, model = sentence_batch(LONG, classes), sentence_model(classes).double()
    plain = make_criterion("r3f_sentence_prediction", sentence_task(classes), regression_target=classes == 1)

    def make(**more):
        return sentence_method(name, batch, classes, **METHODS[name], **more)

    check(make, plain.head.plain, model, batch, 0.5)


def test_every_row_is_as_likely_and_the_mean_is_that_of_all_rows():
    ids = torch.tensor([7, 3, 900, 12, 5])
    values = torch.tensor([1.0, -4.0, 2.5, 8.0, 0.5])
    counts, estimates = torch.zeros(5), []
    for epoch in range(4000):
        rows, factor = chosen_rows(ids, 0.4, 3, epoch)
        counts[rows] += factor > 0
        estimates.append(factor * values[rows].sum())
    assert (counts / 4000 - 0.4).abs().max() < 0.03  # four standard deviations
    assert torch.stack(estimates).mean().item() == pytest.approx(values.sum().item(), abs=0.8)


def test_a_sample_is_chosen_whatever_is_beside_it():
    ids = torch.arange(40)
    chosen = chosen_rows(ids, 0.25, 3, 2)[0]
    assert (chosen[:-1] < chosen[1:]).all() and 2 < len(chosen) < 25
    for part in (ids.flip(0), ids[:20], ids[20:]):
        rows, factor = chosen_rows(part, 0.25, 3, 2)
        assert factor == 4.0 and set(part[rows].tolist()) == set(chosen.tolist()) & set(part.tolist())
    others = [chosen_rows(ids, 0.25, *key)[0].tolist() for key in ((3, 3), (4, 2))]
    assert chosen.tolist() not in others and others[0] != others[1]


def test_where_no_sample_is_chosen_a_row_counts_for_nothing():
    batch, model = toy_batch(LONG, LONG), toy_model()
    criterion = method("r3f", batch, adv_fraction=1e-6, r3f_sigma=0.3)
    assert chosen_rows(batch["id"], 1e-6, criterion.seed, 1)[1] == 0.0
    ours, plain = run_update(criterion, model, [batch]), run_update(plain_criterion(), model, [batch])
    assert ours.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)
    for got, wanted in zip(ours.gradients, plain.gradients):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_plain_training_sees_the_same_numbers(name):
    batch, model = toy_batch(LONG, LONG), toy_model(dropout=0.3)
    states = []
    for criterion in (plain_criterion(), method(name, batch, adv_fraction=0.5, **METHODS[name])):
        run_update(criterion, model, [batch])
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_an_ascent_sees_one_set_of_masks():
    """Else it would climb the divergence of dropout masks."""
    batch, model = toy_batch(LONG, LONG), toy_model(dropout=0.3)
    criterion = method("smart", batch, adv_fraction=0.5)
    part = BatchPart(criterion.open_batch(model, batch), torch.tensor([1, 4]))
    raised = part.from_clean()(part.passes.inner(part.passes.zero()))
    assert raised.item() == pytest.approx(0.0, abs=1e-6)
    other = part.from_clean()(part.passes.perturbed(part.passes.zero(), shared_masks=False))
    assert other.item() > 1e-2


def test_only_the_chosen_rows_are_passed():
    batch, rows = toy_batch(LONG, LONG), []
    model = toy_model()
    model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["src_tokens"])), with_kwargs=True)
    run_update(method("smart", batch, adv_fraction=0.5, adv_steps=2), model, [batch])
    count = len(chosen_rows(batch["id"], 0.5, SEED, 1)[0])
    assert count < 6 and rows == [6, *[count] * 4]  # clean; at x for the ascent, twice in it, at its end
    rows.clear()
    run_update(method("r3f", batch, adv_fraction=0.5), model, [batch])
    assert rows == [6, count]


@pytest.mark.parametrize(
    "beside", [{"adv_passes": "concat"}, {"adv_outer_masks": "shared"}, {"adv_objective": "perturbed"}]
)
def test_what_some_rows_cannot_do_is_refused(beside):
    with pytest.raises(ValueError, match=r"--adv-fraction must be 1 with --adv-.*, got 0.5: "):
        make_criterion("r3f_label_smoothed", adv_fraction=0.5, **beside)


@pytest.mark.parametrize("value", [0.0, -0.5, 1.5])
def test_a_share_is_a_share(value):
    with pytest.raises(ValueError, match=r"--adv-fraction must be in \(0, 1\], got"):
        make_criterion("r3f_label_smoothed", adv_fraction=value)


def test_the_ascent_of_a_part_is_that_of_its_rows():
    """Without dropout δ of a row is the same, whichever rows are beside it."""
    batch, model = toy_batch(LONG, LONG), toy_model().double()
    criterion = method("smart", batch, adv_eps=0.6, adv_step_size=0.3)
    whole = criterion.open_batch(model, batch)
    ascent = ascent_of(criterion.cfg)
    expected, _ = worst_case_perturbation(whole.passes, whole.from_clean(), ascent, stream=1)
    part = BatchPart(criterion.open_batch(model, batch), torch.tensor([0, 5]))
    ours, _ = worst_case_perturbation(part.passes, part.from_clean(), ascent, stream=1)
    for side, values in ours.values.items():
        torch.testing.assert_close(values, expected.values[side][[0, 5]], rtol=1e-4, atol=1e-6)


def test_the_last_step_of_a_batch_that_ran_out_of_memory_is_forgotten():
    model, batch = toy_model(), toy_batch()
    expected = run_update(method("arch", batch), model, [batch])
    criterion = method("arch", batch)
    criterion._last_step = lambda: pytest.fail("a step of another batch")
    assert same_bits(run_update(criterion, model, [batch]), expected)
