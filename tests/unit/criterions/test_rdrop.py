"""R-Drop against an independent implementation; its second pass takes fresh dropout masks."""

from __future__ import annotations

import pytest
import torch

from fairseq_adv.perturb.rng import reseed_from_state
from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, run_update
from tests.unit.toy_models import toy_batch, toy_model


def second_masks(model, batch):
    """Put the generator where the second pass finds it; the rule itself is tested with the passes."""
    torch.manual_seed(5)
    with torch.no_grad():
        model(**batch["net_input"])
    reseed_from_state(torch.device("cpu"))


@pytest.mark.parametrize("kind", ["kl", "sym-kl"])
@pytest.mark.parametrize("detach", [False, True])
def test_loss_and_gradient_with_dropout(kind, detach):
    model, batch = toy_model("transformer_shared", dropout=0.3).double(), toy_batch()
    criterion = make_criterion("rdrop_label_smoothed", rdrop_alpha=2.0, adv_divergence=kind, adv_detach_clean=detach)
    update = run_update(criterion, model, [batch])
    torch.manual_seed(5)
    p = ref.output(model, batch, {})
    second_masks(model, batch)
    q = ref.output(model, batch, {})
    divergence = {"kl": ref.kl, "sym-kl": ref.symmetric_kl}[kind](p.detach() if detach else p, q, batch)
    assert divergence > 1e-2
    cross_entropies = ref.cross_entropy(p, batch) + ref.cross_entropy(q, batch)
    assert_matches(update, model, cross_entropies + 2.0 * divergence)


def test_loss_and_gradient_of_one_pass_over_twice_the_rows():
    model, batch = toy_model(dropout=0.3).double(), toy_batch()
    criterion = make_criterion("rdrop_label_smoothed", rdrop_alpha=2.0, adv_passes="concat")
    update = run_update(criterion, model, [batch])
    twice = {key: torch.cat([value, value]) for key, value in batch["net_input"].items()}
    torch.manual_seed(5)
    p, q = ref.output(model, {"net_input": twice}, {}).chunk(2)
    expected = ref.cross_entropy(p, batch) + ref.cross_entropy(q, batch) + 2.0 * ref.symmetric_kl(p, q, batch)
    assert_matches(update, model, expected)


@pytest.mark.parametrize("passes", ["sequential", "concat"])
def test_without_dropout_there_is_no_divergence(passes):
    model, batch = toy_model().double(), toy_batch()
    update = run_update(make_criterion("rdrop_label_smoothed", adv_passes=passes), model, [batch])
    assert update.log["adv_loss"].item() == pytest.approx(0.0, abs=0.0 if passes == "sequential" else 1e-6)
    assert_matches(update, model, 2 * ref.cross_entropy(ref.output(model, batch, {}), batch))


@pytest.mark.parametrize("sides", ["src", "tgt"])
def test_a_choice_of_sides_is_refused(sides):
    with pytest.raises(ValueError, match=f"--adv-sides must be left out: R-Drop .*, got {sides}"):
        make_criterion("rdrop_label_smoothed", adv_sides=sides)


def test_shared_masks_are_refused():
    with pytest.raises(ValueError, match=r"--adv-outer-masks must be left out: R-Drop .*, got shared"):
        make_criterion("rdrop_label_smoothed", adv_outer_masks="shared")
