"""SimCut against an independent implementation: whole words are zeroed, the gradient flows both ways."""

from __future__ import annotations

import pytest

from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, make_criterion, noise_in_columns, run_update
from tests.unit.toy_models import toy_batch, toy_model


def cut_words(batch, p, sides):
    """For each side and sentence the columns that are cut: a uniform number of (0, 1) below *p* for each word."""
    noise = noise_in_columns("uniform", batch, sides, dim=1)
    result = {}
    for side in sides:
        columns = ref.real_columns(batch["net_input"][ref.TOKENS[side]])
        result[side] = [[c for c in row if (noise[side][b, c, 0].item() + 1) / 2 < p] for b, row in enumerate(columns)]
    return result


@pytest.mark.parametrize("passes", ["sequential", "concat"])
@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
@pytest.mark.parametrize("detach", [False, True])
def test_loss_and_gradient_of_one_update(passes, sides, detach):
    model, batch, p_cut = toy_model("transformer_shared").double(), toy_batch((9, 5, 3), (4, 8, 6)), 0.4
    criterion = make_criterion(
        "simcut_label_smoothed",
        simcut_alpha=1.5,
        adv_lambda=0.8,
        simcut_p=p_cut,
        adv_sides="both" if len(sides) == 2 else sides[0],
        adv_passes=passes,
        adv_detach_clean=detach,
    )
    update = run_update(criterion, model, [batch])
    embeddings = {side: ref.word_embeddings(model, batch, side) for side in ref.TOKENS}
    for side, rows in cut_words(batch, p_cut, sides).items():
        assert any(rows)
        kept = embeddings[side].detach().new_ones(*embeddings[side].shape[:2], 1)
        for b, columns in enumerate(rows):
            kept[b, columns] = 0.0
        embeddings[side] = embeddings[side] * kept
    p, q = ref.output(model, batch, {}), ref.log_probs_of(model, batch, embeddings["src"], embeddings["tgt"])
    penalty = ref.kl(p.detach() if detach else p, q, batch)
    assert penalty > 1e-2
    assert_matches(update, model, ref.cross_entropy(p, batch) + 1.2 * penalty)


def test_radius_schedule_is_refused():
    with pytest.raises(ValueError, match="--adv-radius-schedule"):
        make_criterion("simcut_label_smoothed", adv_radius_schedule="2@0")
