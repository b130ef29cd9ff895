"""The columns of the training log are means over what was regularised."""

from __future__ import annotations

import math

import pytest
from fairseq.logging import metrics

from tests.unit.criterions.updates import make_criterion, run_update
from tests.unit.toy_models import toy_batch, toy_model


def logged(criterion, updates):
    """The columns after *updates*, the dictionaries that one update each logged, as fairseq shows them."""
    metrics.reset()
    with metrics.aggregate("train") as meters:
        for log in updates:
            type(criterion).reduce_metrics([log])
    return meters.get_smoothed_values()


@pytest.mark.parametrize("every", [1, 4])
def test_plain_updates_do_not_dilute_the_columns(every):
    model, batch = toy_model(), toy_batch()
    criterion = make_criterion("r3f_label_smoothed", r3f_sigma=0.5, adv_every=every)
    updates = [run_update(criterion, model, [batch], number).log for number in range(4)]
    assert (float(updates[1]["adv_loss"]) == 0) == (every > 1)
    shown = logged(criterion, updates)
    nats = float(updates[0]["adv_loss"]) / batch["ntokens"]
    assert shown["adv_loss"] == pytest.approx(nats / math.log(2), abs=1e-4)
    assert shown["adv_norm_src"] == pytest.approx(float(updates[0]["adv_norm_src"]) / 3, abs=1e-3)


def test_plain_training_keeps_the_columns_and_evaluation_has_none():
    model, batch = toy_model(), toy_batch()
    criterion = make_criterion("r3f_label_smoothed", adv_start_update=5)
    assert logged(criterion, [run_update(criterion, model, [batch]).log])["adv_loss"] == 0
    assert "adv_loss" not in logged(criterion, [criterion(model.eval(), batch)[2]])
