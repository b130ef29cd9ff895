"""ScaLA-style noise against an independent implementation: one step from tiny noise, on the divergence or the loss."""

from __future__ import annotations

import pytest

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, noise_in_columns, run_update
from tests.unit.toy_models import toy_batch, toy_model

SIGMA, OMEGA = 0.05, 0.6


def noise(batch, sides):
    return {side: SIGMA * values for side, values in noise_in_columns("normal", batch, sides).items()}


def scala(kind, sides=("src", "tgt"), **options):
    choice = "both" if len(sides) == 2 else sides[0]
    defaults = dict(adv_lambda=0.7, scala_sigma=SIGMA, scala_radius=OMEGA, scala_step_size=0.5)
    return make_criterion("scala_label_smoothed", scala_loss=kind, adv_sides=choice, **{**defaults, **options})


@pytest.mark.parametrize("divergence", ["kl", "sym-kl"])
@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("rho", [0.5, 2.0])  # inside the ball, and cut back to it
def test_noise_that_raises_the_divergence(divergence, sides, detach, rho):
    model, batch = toy_model("transformer_shared").double(), toy_batch()
    criterion = scala("kl", sides, adv_divergence=divergence, adv_detach_clean=detach, scala_step_size=rho)
    update = run_update(criterion, model, [batch])
    clean, start = ref.output(model, batch, {}).detach(), noise(batch, sides)
    gradient = ref.gradient_at(start, lambda d: ref.kl(clean, ref.output(model, batch, d), batch))
    delta = ref.step(start, gradient, batch, rho, OMEGA)
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    fixed = p.detach() if detach else p
    penalty = {"kl": ref.kl, "sym-kl": ref.symmetric_kl}[divergence](fixed, q, batch)
    assert penalty > 1e-2
    assert_matches(update, model, ref.cross_entropy(p, batch) + 0.7 * penalty)


@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
def test_noise_that_raises_the_loss(sides):
    """g is the clean pass's own embedding gradient, taken at x; nothing flows through p."""
    model, batch = toy_model("transformer_shared").double(), toy_batch()
    update = run_update(scala("ce", sides), model, [batch])
    zero = ref.zeros(model, batch, sides)
    gradient = ref.gradient_at(zero, lambda d: ref.cross_entropy(ref.output(model, batch, d), batch))
    delta = ref.step(noise(batch, sides), gradient, batch, 0.5, OMEGA)
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    penalty = ref.kl(p.detach(), q, batch)
    assert ref.cross_entropy(q, batch) > ref.cross_entropy(p, batch) + 0.1
    assert_matches(update, model, ref.cross_entropy(p, batch) + 0.7 * penalty)


@pytest.mark.parametrize("kind", ["kl", "ce"])
def test_radius_schedule_scales_ball_and_step(kind):
    model, batch = toy_model().double(), toy_batch()
    scheduled = scala(kind, adv_radius_schedule="2@0")
    doubled = scala(kind, scala_radius=2 * OMEGA, scala_step_size=1.0)
    assert run_update(scheduled, model, [batch]).loss == run_update(doubled, model, [batch]).loss
