"""DisAdv against an independent implementation: a step along the clean loss's own gradient, then half of each loss."""

from __future__ import annotations

import pytest

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, run_update
from tests.unit.toy_models import toy_batch, toy_model

ALPHA = 0.4


def disadv_loss(model, batch, alpha=ALPHA, sides=("src", "tgt")):
    """½ [CE(x) + CE(x + α g/‖g‖)]."""

    def loss_at(delta):
        return ref.cross_entropy(ref.output(model, batch, delta), batch)

    gradient = ref.gradient_at(ref.zeros(model, batch, sides), loss_at)
    delta = ref.each_sentence(gradient, batch, lambda words: ref.of_norm(words, alpha))
    clean, adversarial = loss_at({}), loss_at(delta)
    assert adversarial > clean + 0.1
    return 0.5 * (clean + adversarial)


@pytest.mark.parametrize("name", ["transformer", "transformer_shared"])
@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
def test_loss_and_gradient_of_one_update(name, sides):
    model, batch = toy_model(name).double(), toy_batch()
    choice = "both" if len(sides) == 2 else sides[0]
    criterion = make_criterion("disadv_label_smoothed", disadv_alpha=ALPHA, adv_sides=choice)
    assert_matches(run_update(criterion, model, [batch]), model, disadv_loss(model, batch, sides=sides))


def test_radius_schedule_scales_the_norm():
    model, batch = toy_model().double(), toy_batch()
    criterion = make_criterion("disadv_label_smoothed", disadv_alpha=ALPHA, adv_radius_schedule="2@7")
    for update_num, factor in ((6, 1), (7, 2)):
        update = run_update(criterion, model, [batch], update_num)
        assert_matches(update, model, disadv_loss(model, batch, ALPHA * factor))


def test_a_weight_that_disadv_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"--adv-lambda must be 0 .*or 1.*got 2"):
        make_criterion("disadv_label_smoothed", adv_lambda=2.0)


@pytest.mark.parametrize("name", ["disadv", "freelb", "freeat"])
def test_a_forward_pass_alone_is_no_update(name):
    criterion = make_criterion(f"{name}_label_smoothed")
    with pytest.raises(RuntimeError, match="needs its backward pass"):
        criterion(toy_model(), toy_batch())
