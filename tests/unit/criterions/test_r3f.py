"""R3F against an independent implementation, and its place beside the mean of the two divergences."""

from __future__ import annotations

import pytest

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, noise_in_columns, run_update
from tests.unit.toy_models import toy_batch, toy_model

SIGMA = 0.3


@pytest.mark.parametrize("passes", ["sequential", "concat"])
@pytest.mark.parametrize("noise", ["normal", "uniform"])
@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
@pytest.mark.parametrize("detach", [False, True])
def test_loss_and_gradient_of_one_update(passes, noise, sides, detach):
    model, batch = toy_model("transformer_shared").double(), toy_batch()
    criterion = make_criterion(
        "r3f_label_smoothed",
        adv_lambda=0.6,
        r3f_sigma=SIGMA,
        r3f_noise=noise,
        adv_sides="both" if len(sides) == 2 else sides[0],
        adv_passes=passes,
        adv_detach_clean=detach,
    )
    update = run_update(criterion, model, [batch])
    delta = {side: SIGMA * values for side, values in noise_in_columns(noise, batch, sides).items()}
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    fixed = p.detach() if detach else p
    both = ref.kl(fixed, q, batch) + ref.kl(q, fixed, batch)  # the sum, not the mean (Eq. 6)
    assert both > 1e-2
    assert_matches(update, model, ref.cross_entropy(p, batch) + 0.6 * both)


def test_one_direction():
    model, batch = toy_model().double(), toy_batch()
    update = run_update(make_criterion("r3f_label_smoothed", r3f_sigma=SIGMA, adv_divergence="kl"), model, [batch])
    delta = {side: SIGMA * values for side, values in noise_in_columns("normal", batch).items()}
    p, q = ref.output(model, batch, {}), ref.output(model, batch, delta)
    assert_matches(update, model, ref.cross_entropy(p, batch) + ref.kl(p, q, batch))


def test_every_epoch_draws_its_own_noise():
    model, batch = toy_model().double(), toy_batch()
    criterion = make_criterion("r3f_label_smoothed", r3f_sigma=SIGMA)
    losses = []
    for epoch in (1, 2, 1):
        criterion.begin_epoch(epoch)
        losses.append(run_update(criterion, model, [batch]).loss.item())
    assert losses[0] == losses[2] != losses[1]


def test_radius_schedule_scales_the_noise():
    model, batch = toy_model().double(), toy_batch()
    criterion = make_criterion("r3f_label_smoothed", r3f_sigma=SIGMA, adv_radius_schedule="1@0,2@5")
    norms = [run_update(criterion, model, [batch], update_num).log["adv_norm_tgt"].item() for update_num in (4, 5)]
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-5)
