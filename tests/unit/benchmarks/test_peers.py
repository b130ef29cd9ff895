"""benchmarks/peers.py: its peers compute what the papers print, and what is compared does the same work."""

from __future__ import annotations

import pytest
import torch
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY

from benchmarks import peer_criterions, peers
from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import assert_matches, run_update
from tests.unit.toy_models import toy_batch, toy_model, toy_task


def peer(name, **options):
    cfg = CRITERION_DATACLASS_REGISTRY[name](label_smoothing=0.1, sentence_avg=False, **options)
    return CRITERION_REGISTRY[name](cfg, toy_task())


@pytest.mark.parametrize("architecture", ["transformer", "transformer_shared"])
def test_simcut_is_eq_6(architecture, monkeypatch):
    model, batch = toy_model(architecture).double(), toy_batch()
    kept = {}

    def keep(tokens, share):
        assert share == pytest.approx(0.7)
        kept[tokens.shape] = mask = (tokens % 3 > 0).float()  # no chance
        return mask

    monkeypatch.setattr(peer_criterions, "kept_words", keep)
    update = run_update(peer("peer_simcut", peer_alpha=2.0, peer_p=0.3), model, [batch])
    assert len(kept) == 2
    words = {side: ref.word_embeddings(model, batch, side) for side in ref.TOKENS}
    masks = {side: (batch["net_input"][name] % 3 > 0).double().unsqueeze(-1) for side, name in ref.TOKENS.items()}
    clean = ref.log_probs_of(model, batch, words["src"], words["tgt"])
    cut = ref.log_probs_of(model, batch, words["src"] * masks["src"], words["tgt"] * masks["tgt"])
    assert_matches(update, model, ref.cross_entropy(clean, batch) + 2.0 * ref.kl(clean, cut, batch))


def test_r3f_moves_the_source_and_adds_both_directions(monkeypatch):
    model, batch = toy_model().double(), toy_batch()
    batch["target"][batch["target"] == ref.PAD] = 5  # the public code counts padding too: here there is none
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, mean, std: self.fill_(std))
    update = run_update(peer("peer_r3f", peer_lambda=0.5, peer_sigma=0.2), model, [batch])
    words = {side: ref.word_embeddings(model, batch, side) for side in ref.TOKENS}
    clean = ref.log_probs_of(model, batch, words["src"], words["tgt"])
    noised = ref.log_probs_of(model, batch, words["src"] + 0.2, words["tgt"])
    penalty = ref.kl(clean, noised, batch) + ref.kl(noised, clean, batch)
    assert_matches(update, model, ref.cross_entropy(clean, batch) + 0.5 * penalty)


def test_no_penalty_in_evaluation():
    model, batch = toy_model().eval(), toy_batch()
    for name in ("peer_simcut", "peer_r3f"):
        plain = CRITERION_REGISTRY["label_smoothed_cross_entropy"](toy_task(), False, 0.1)
        assert torch.equal(peer(name)(model, batch)[0], plain(model, batch)[0])


def test_ratios_are_taken_within_a_round():
    times = {
        "plain": [1.0, 10.0, 1.0],
        "rdrop, fairseq": [4.0, 40.0, 4.0],
        "rdrop": [2.0, 20.0, 3.0],
        "rdrop, concat": [4.0, 40.0, 4.0],
    }
    rows = {row["method"]: row for row in peers.rows_of(30, ["rdrop"], times)}
    assert rows["rdrop"]["to_peer"][1] == 0.5 and rows["rdrop"]["to_plain"] == 2.0
    assert rows["rdrop, concat"]["to_peer"] == [1.0, 1.0, 1.0]
    assert "to_peer" not in rows["plain"] and "to_peer" not in rows["rdrop, fairseq"]


def test_the_authors_own_encoder_argument_is_taken(monkeypatch):
    """The public criterion hands the share that is kept to encoder and decoder."""
    model, batch = toy_model("transformer_shared"), toy_batch()
    inputs = batch["net_input"]
    peer_criterions.take_simcut_p(model)
    monkeypatch.setattr(peer_criterions, "kept_words", lambda tokens, share: torch.zeros_like(tokens).float() + share)
    scaled = model.encoder(inputs["src_tokens"], inputs["src_lengths"], simcut_p=0.5)["encoder_embedding"][0]
    whole = model.encoder(inputs["src_tokens"], inputs["src_lengths"])["encoder_embedding"][0]
    torch.testing.assert_close(scaled, 0.5 * whole)
