"""How many passes each method runs and under which dropout masks: the clean pass's, or fresh ones."""

from __future__ import annotations

import pytest
import torch

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, honoured, make_criterion, noise_in_columns, run_update
from tests.unit.toy_models import toy_batch, toy_model

# c: the masks of the clean pass, o: an outer pass, whose masks --adv-outer-masks decides
PASSES = {
    "smart_label_smoothed": ({}, "cccco"),
    "r3f_label_smoothed": ({}, "co"),
    "vat_label_smoothed": ({}, "cco"),
    "simcut_label_smoothed": ({}, "co"),
    "disadv_label_smoothed": ({}, "co"),
    "scala_label_smoothed": ({}, "cco"),
    "scala_label_smoothed ": ({"scala_loss": "ce"}, "co"),
    "freelb_label_smoothed": ({}, "ccc"),
}


def states_of_passes(criterion, model, batches):
    """The generator's state at the start of each forward pass: equal states, equal masks."""
    states = []
    handle = model.register_forward_pre_hook(lambda *_: states.append(torch.get_rng_state()))
    run_update(criterion, model, batches)
    handle.remove()
    return states


@pytest.mark.parametrize("case", PASSES)
@pytest.mark.parametrize("masks", ["fresh", "shared"])
@pytest.mark.parametrize("detach", [False, True])
def test_masks_of_each_pass(case, masks, detach):
    options, pattern = PASSES[case]
    model = toy_model(dropout=0.3)
    options = honoured(case.strip(), adv_outer_masks=masks, adv_detach_clean=detach, **options)
    criterion = make_criterion(case.strip(), **options)
    batches = [toy_batch(seed=1), toy_batch(seed=2, first_id=3)]
    states = states_of_passes(criterion, model, batches)
    assert len(states) == 2 * len(pattern)
    for first in (0, len(pattern)):
        clean = states[first]
        for kind, state in zip(pattern, states[first:]):
            assert torch.equal(state, clean) == (kind == "c" or masks == "shared")
    fresh = [states[k + i] for k in (0, len(pattern)) for i, kind in enumerate(pattern) if kind == "o"]
    for a, b in [(a, b) for i, a in enumerate(fresh) for b in fresh[:i]]:
        assert not torch.equal(a, b)
    assert not torch.equal(states[0], states[len(pattern)])  # the next batch has masks of its own


def test_rdrop_never_shares():
    model = toy_model(dropout=0.3)
    first, second = states_of_passes(make_criterion("rdrop_label_smoothed"), model, [toy_batch()])
    assert not torch.equal(first, second)


def test_shared_masks_give_the_loss_at_one_set_of_masks():
    """With every pass under the clean masks, SMART is the deterministic model's SMART."""
    model, batch = toy_model(dropout=0.3).double(), toy_batch()
    criterion = make_criterion("smart_label_smoothed", adv_steps=0, adv_eps=0.5, adv_outer_masks="shared")
    update = run_update(criterion, model, [batch])
    delta = ref.each_sentence(noise_in_columns("uniform", batch), batch, lambda words: ref.of_norm(words, 0.5))
    outputs = []
    for shift in ({}, delta):
        torch.manual_seed(5)
        outputs.append(ref.output(model, batch, shift))
    expected = ref.cross_entropy(outputs[0], batch) + ref.symmetric_kl(outputs[0], outputs[1], batch)
    assert_matches(update, model, expected)
