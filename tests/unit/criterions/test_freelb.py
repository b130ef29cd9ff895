"""FreeLB against an independent implementation: K cross-entropies whose own gradients move the perturbation."""

from __future__ import annotations

import pytest
import torch

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, noise_in_columns, run_update
from tests.unit.toy_models import toy_batch, toy_model

EPSILON, ETA = 0.5, 0.2


def freelb_loss(model, batch, steps, sides=("src", "tgt"), init_scale=1.0):
    """(1/K) Σ_k CE(x + δᵏ), every pass from the same state of the generator; δ is a constant in each."""
    state = torch.get_rng_state()

    def loss_at(delta):
        torch.set_rng_state(state)
        return ref.cross_entropy(ref.output(model, batch, delta), batch)

    start = noise_in_columns("uniform", batch, sides)
    delta = ref.each_sentence(start, batch, lambda words: ref.of_norm(words, EPSILON * init_scale))
    total, losses = 0, []
    for _ in range(steps):
        losses.append(loss_at(delta))
        total = total + losses[-1] / steps
        delta = ref.step(delta, ref.gradient_at(delta, loss_at), batch, ETA, EPSILON)
    return total, [loss.item() for loss in losses]


def freelb(**options):
    return make_criterion("freelb_label_smoothed", adv_eps=EPSILON, adv_step_size=ETA, **options)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_loss_and_gradient_of_one_update(steps, sides, scale):
    model, batch = toy_model("transformer_shared").double(), toy_batch()
    choice = "both" if len(sides) == 2 else sides[0]
    update = run_update(freelb(adv_steps=steps, adv_sides=choice, adv_init_scale=scale), model, [batch])
    expected, losses = freelb_loss(model, batch, steps, sides, scale)
    assert losses == sorted(losses)  # the ascent climbs
    assert_matches(update, model, expected)
    assert update.log["adv_loss"].item() == pytest.approx(sum(losses) / steps, rel=1e-5)


def test_all_passes_share_their_dropout_masks():
    model, batch = toy_model(dropout=0.3).double(), toy_batch()
    update = run_update(freelb(adv_steps=3), model, [batch])
    torch.manual_seed(5)
    expected, _ = freelb_loss(model, batch, 3)
    assert_matches(update, model, expected)


def test_micro_batches_add_up():
    model, batches = toy_model().double(), [toy_batch(), toy_batch((2, 6), (3, 1), seed=4, first_id=3)]
    update = run_update(freelb(), model, batches)
    assert_matches(update, model, sum(freelb_loss(model, batch, 3)[0] for batch in batches))


def test_losses_without_their_backward_passes_are_refused():
    """Called as a plain loss, K > 1 terms would all be taken at the same δ without a word."""
    with pytest.raises(RuntimeError, match="backward pass"):
        freelb()(toy_model(), toy_batch())


def test_a_weight_that_freelb_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"--adv-lambda must be 0 .*or 1.*got 0.5"):
        freelb(adv_lambda=0.5)
