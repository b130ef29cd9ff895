"""SMART against an independent implementation: worst-case perturbation, divergence, Bregman proximal term."""

from __future__ import annotations

import copy

import pytest
import torch

from fairseq_adv.criterions.frame.config import ascent_of
from fairseq_adv.methods.worst_case import worst_case_perturbation
from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, noise_in_columns, run_update
from tests.unit.toy_models import toy_batch, toy_model

EPSILON, ETA = 0.6, 0.3
DIVERGENCES = {"kl": ref.kl, "sym-kl": ref.symmetric_kl}


def worst_case(model, batch, divergence, steps, sides, init="uniform", scale=1.0):
    """Algorithm 1 of ARCH, lines 3-7."""
    clean = ref.output(model, batch, {}).detach()
    start = noise_in_columns(init, batch, sides)
    delta = ref.each_sentence(start, batch, lambda words: ref.of_norm(words, scale * EPSILON))
    for _ in range(steps):
        gradient = ref.gradient_at(delta, lambda d: divergence(clean, ref.output(model, batch, d), batch))
        delta = ref.step(delta, gradient, batch, ETA, EPSILON)
    return delta


def smart(**options):
    return make_criterion("smart_label_smoothed", adv_eps=EPSILON, adv_step_size=ETA, **options)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("transformer", ("src", "tgt")),
        ("transformer_prenorm", ("src", "tgt")),
        ("transformer_shared", ("src", "tgt")),
        ("transformer_shared", ("src",)),
        ("transformer_shared", ("tgt",)),
    ],
)
@pytest.mark.parametrize("kind", ["kl", "sym-kl"])
@pytest.mark.parametrize("detach", [False, True])
def test_loss_and_gradient_of_one_update(name, kind, detach, sides):
    model, batch = toy_model(name).double(), toy_batch()
    choice = "both" if len(sides) == 2 else sides[0]
    criterion = smart(adv_lambda=0.7, adv_divergence=kind, adv_detach_clean=detach, adv_sides=choice)
    update = run_update(criterion, model, [batch])
    delta = worst_case(model, batch, DIVERGENCES[kind], 3, sides)
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    divergence = DIVERGENCES[kind](p.detach() if detach else p, q, batch)
    assert divergence > 1e-3
    assert_matches(update, model, ref.cross_entropy(p, batch) + 0.7 * divergence)
    assert update.log["adv_loss"].item() == pytest.approx(divergence.item(), rel=1e-4)


@pytest.mark.parametrize(("init", "scale"), [("normal", 1.0), ("uniform", 0.2), ("normal", 0.5)])
def test_start_of_the_ascent(init, scale):
    model, batch = toy_model().double(), toy_batch()
    update = run_update(smart(adv_steps=1, adv_init=init, adv_init_scale=scale), model, [batch])
    delta = worst_case(model, batch, ref.symmetric_kl, 1, ("src", "tgt"), init, scale)
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    assert_matches(update, model, ref.cross_entropy(p, batch) + ref.symmetric_kl(p, q, batch))


def largest_coordinate_climb(words, gradient):
    """One word-level ℓ∞ step: each word moves by ETA in its steepest coordinate's measure, then is clipped."""
    moved = words + ETA * gradient / gradient.abs().amax(dim=1, keepdim=True)
    return moved.clamp(-0.1, 0.1)


def test_words_in_the_maximum_norm():
    """The ball of ARCH's language understanding experiments: each word by itself, coordinate by coordinate."""
    model, batch = toy_model().double(), toy_batch()
    options = dict(adv_norm="linf", adv_level="word", adv_steps=2, adv_step_size=ETA, adv_eps=0.1)
    update = run_update(make_criterion("smart_label_smoothed", **options), model, [batch])
    clean, start = ref.output(model, batch, {}).detach(), noise_in_columns("uniform", batch)
    delta = ref.each_sentence(start, batch, lambda words: 0.1 * words / words.abs().amax(dim=1, keepdim=True))
    for _ in range(2):
        gradient = ref.gradient_at(delta, lambda d: ref.symmetric_kl(clean, ref.output(model, batch, d), batch))
        delta = ref.each_sentence(delta, batch, largest_coordinate_climb, gradient)
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    assert_matches(update, model, ref.cross_entropy(p, batch) + ref.symmetric_kl(p, q, batch))


def test_the_perturbation_raises_the_divergence():
    """Each step climbs: a descent, or a gradient taken at the wrong point, would not."""
    model, batch = toy_model().double(), toy_batch()
    losses = [run_update(smart(adv_steps=steps), model, [batch]).log["adv_loss"].item() for steps in (0, 1, 2, 3)]
    assert losses == sorted(losses) and losses[3] > 1.5 * losses[0]


@pytest.mark.parametrize("detach", [False, True])
def test_bregman_term_against_the_momentum_teacher(detach):
    """θ̃ after two updates is β (β θ₀ + (1 − β) θ₁) + (1 − β) θ₂; its output is clean of dropout and of δ."""
    model, batch, beta, mu = toy_model().double(), toy_batch(), 0.7, 0.4
    criterion = smart(adv_lambda=0.5, smart_bregman=mu, smart_momentum=beta, adv_steps=1, adv_detach_clean=detach)
    history = []
    for update_num in range(3):
        history.append(copy.deepcopy(model.state_dict()))
        update = run_update(criterion, model, [batch, batch], update_num)  # micro-batches do not move the teacher
        if update_num < 2:
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), update.gradients):
                    parameter.sub_(0.02 * gradient)
    teacher = copy.deepcopy(model)
    first, second, third = history
    for name, parameter in teacher.named_parameters():
        parameter.data = beta * (beta * first[name] + (1 - beta) * second[name]) + (1 - beta) * third[name]
    delta = worst_case(model, batch, ref.symmetric_kl, 1, ("src", "tgt"))
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    proximal = ref.symmetric_kl(p, ref.output(teacher, batch, {}).detach(), batch)
    assert proximal > 1e-3
    divergence = ref.symmetric_kl(p.detach() if detach else p, q, batch)
    expected = 2 * (ref.cross_entropy(p, batch) + 0.5 * divergence + mu * proximal)
    assert_matches(update, model, expected)


def test_teacher_without_distance_adds_nothing_and_leaves_the_model_as_it_was():
    model, batch = toy_model(dropout=0.0).double(), toy_batch()
    before = copy.deepcopy(model.state_dict())
    with_teacher = run_update(smart(smart_bregman=1.0), model, [batch])
    without = run_update(smart(), model, [batch])
    assert with_teacher.loss.item() == pytest.approx(without.loss.item(), rel=1e-6)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training and all(module.training for module in model.modules())


def test_teacher_survives_a_checkpoint():
    model, batch = toy_model().double(), toy_batch()
    first = smart(smart_bregman=1.0, smart_momentum=0.9)
    run_update(first, model, [batch], update_num=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05)
    state = first.checkpoint_state()
    second = smart(smart_bregman=1.0, smart_momentum=0.9)
    second.teacher.parameters = {name: value.clone() for name, value in state["teacher"].items()}
    uninterrupted = run_update(first, model, [batch], update_num=1)
    resumed = run_update(second, model, [batch], update_num=1)
    assert torch.equal(uninterrupted.loss, resumed.loss)
    assert uninterrupted.loss > run_update(smart(), model, [batch]).loss


def test_the_teacher_follows_in_plain_updates_and_on_dummy_batches():
    """``--smart-momentum`` is for one update, whatever ``--adv-every`` and the other ranks do."""
    model, parameters = toy_model(), []
    criterion = make_criterion("smart_label_smoothed", smart_bregman=0.5, smart_momentum=0.5, adv_every=4)
    for update in range(4):
        criterion.begin_micro_batch(update, dummy_batch=update == 2)
        criterion.begin_pass(model)
        parameters.append(next(model.parameters()).detach().clone())
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
    expected = parameters[0]
    for value in parameters[1:]:
        expected = 0.5 * expected + 0.5 * value
    torch.testing.assert_close(next(iter(criterion.teacher.parameters.values())), expected)


@pytest.mark.parametrize(
    ("options", "warned"), [({}, False), ({"adv_step_size": 0.1}, True), ({"adv_step_size": 0.5}, False)]
)
def test_the_step_follows_the_radius_and_one_that_leaves_noise_is_told(caplog, options, warned):
    """The angle between a perturbation and its random start, at the radius of the quickstart."""
    model, batch = toy_model().double(), toy_batch()
    criterion = make_criterion("smart_label_smoothed", adv_eps=1.0, **options)
    said = [record for record in caplog.records if "mostly noise" in record.getMessage()]
    assert bool(said) == warned
    opened = criterion.open_batch(model, batch)
    ascent = ascent_of(criterion.cfg)
    start = ascent.start(opened.passes, stream=1)
    delta, _ = worst_case_perturbation(opened.passes, opened.from_clean(), ascent, stream=1)
    cosine = torch.cosine_similarity(delta.values["src"].flatten(1), start.values["src"].flatten(1)).mean()
    assert (cosine > 0.9) == warned
