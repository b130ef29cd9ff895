"""VAT against an independent implementation: one gradient at a random start, a perturbation of exact norm."""

from __future__ import annotations

import pytest

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, noise_in_columns, run_update
from tests.unit.toy_models import toy_batch, toy_model

DIVERGENCES = {"kl": ref.kl, "sym-kl": ref.symmetric_kl}


@pytest.mark.parametrize("kind", ["kl", "sym-kl"])
@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
@pytest.mark.parametrize("detach", [False, True])
def test_loss_and_gradient_of_one_update(kind, sides, detach):
    model, batch, epsilon = toy_model("transformer_shared").double(), toy_batch(), 0.8
    criterion = make_criterion(
        "vat_label_smoothed",
        adv_lambda=0.9,
        vat_eps=epsilon,
        adv_divergence=kind,
        adv_sides="both" if len(sides) == 2 else sides[0],
        adv_detach_clean=detach,
    )
    update = run_update(criterion, model, [batch])
    divergence = DIVERGENCES[kind]
    clean = ref.output(model, batch, {}).detach()
    start = ref.each_sentence(noise_in_columns("normal", batch, sides), batch, lambda words: ref.of_norm(words, 1.0))
    gradient = ref.gradient_at(start, lambda d: divergence(clean, ref.output(model, batch, d), batch))
    delta = ref.each_sentence(gradient, batch, lambda words: ref.of_norm(words, epsilon))
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    penalty = divergence(p.detach() if detach else p, q, batch)
    assert penalty > 1e-2
    assert_matches(update, model, ref.cross_entropy(p, batch) + 0.9 * penalty)
    for side in sides:
        assert update.log[f"adv_norm_{side}"].item() == pytest.approx(3 * epsilon, rel=1e-5)


def test_raises_the_divergence_more_than_the_opposite_direction_and_more_than_noise():
    model, batch = toy_model().double(), toy_batch()
    update = run_update(make_criterion("vat_label_smoothed", vat_eps=0.3), model, [batch])
    noise = ref.each_sentence(noise_in_columns("normal", batch), batch, lambda words: ref.of_norm(words, 0.3))
    clean = ref.output(model, batch, {}).detach()
    assert update.log["adv_loss"] > 1.5 * ref.kl(clean, ref.output(model, batch, noise), batch)


def test_radius_schedule_scales_the_norm():
    model, batch = toy_model().double(), toy_batch()
    criterion = make_criterion("vat_label_smoothed", vat_eps=0.2, adv_radius_schedule="1@0,3@5")
    for update_num, factor in ((4, 1.0), (5, 3.0)):
        log = run_update(criterion, model, [batch], update_num).log
        assert log["adv_norm_src"].item() == pytest.approx(3 * 0.2 * factor, rel=1e-5)
