"""Padding is decided once for each batch, on the CPU, and changes no bit of what fairseq computes."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import torch

from fairseq_adv.compat.on_cpu import KnownBool, answering, hook_once, note
from tests.integration.waiting_reads import counted_reads
from tests.unit.toy_models import toy_batch, toy_model

PAD = 1
BATCHES = {"padded": toy_batch(), "source padded": toy_batch((3, 1), (4, 4)), "full": toy_batch((3, 3), (4, 4))}
TOKENS = ("src_tokens", "prev_output_tokens")


def moved(batch):
    """Stands for the copy on a GPU: other tensors with the same numbers."""
    inputs = {name: tensor.clone() for name, tensor in batch["net_input"].items()}
    return {**batch, "id": batch["id"].clone(), "target": batch["target"].clone(), "net_input": inputs}


def logits_and_gradients(model, batch):
    torch.manual_seed(2)
    logits = model(**batch["net_input"])[0]
    return logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize(
    "name", ["transformer", "transformer_shared", "transformer_prenorm", "lightconv", "fconv", "lstm"]
)
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("noted", [True, False])
def test_the_same_numbers_bit_for_bit(name, kind, noted):
    options = {} if name in ("fconv", "lstm") else {"encoder_layers": 2}
    batch, models = moved(BATCHES[kind]), [toy_model(name, dropout=0.3, **options) for _ in range(2)]
    pads = hook_once(SimpleNamespace(_model=models[1]))
    assert pads == ({PAD} if options else set())
    if noted:
        note(BATCHES[kind], batch, pads)
    for theirs, ours in zip(logits_and_gradients(models[0], BATCHES[kind]), logits_and_gradients(models[1], batch)):
        assert (theirs is None and ours is None) or torch.equal(theirs, ours)


@pytest.mark.parametrize("name", ["transformer", "lightconv"])
def test_no_pass_asks_a_noted_batch(name):
    model, batch = toy_model(name), moved(BATCHES["padded"])
    hook_once(SimpleNamespace(_model=model))
    with counted_reads() as before:
        model(**batch["net_input"])
    note(BATCHES["padded"], batch := moved(BATCHES["padded"]), {PAD})
    with counted_reads() as after:
        model(**batch["net_input"])
        model(**batch["net_input"])
    asked = [count for (place, _), count in before.items() if place.endswith("answering")]
    assert asked == [2 if name == "transformer" else 1]
    assert not [place for place, _ in after if "answering" in place]


def test_notes_say_what_is_in_the_batch():
    for batch in BATCHES.values():
        note(batch, after := moved(batch), {PAD, 2})
        for name in TOKENS:
            tokens = batch["net_input"][name]
            assert after["net_input"][name].padded == {pad: pad in tokens.flatten().tolist() for pad in (PAD, 2)}
        assert after["id"].on_cpu is batch["id"]
    note(batch := toy_batch(), batch, {PAD})
    assert not hasattr(batch["id"], "on_cpu")  # it would hold itself


def test_pairs_of_languages_are_noted():
    before = {"en-de": toy_batch(), "en-fr": toy_batch((2, 2), (3, 3))}
    after = {pair: moved(batch) for pair, batch in before.items()}
    note(before, after, {PAD})
    assert [after[pair]["net_input"]["src_tokens"].padded[PAD] for pair in before] == [True, False]


def test_noted_tokens_are_saved_and_loaded_under_torchs_protection():
    note(batch := toy_batch(), batch, {PAD})
    torch.save(batch["net_input"], buffer := io.BytesIO())
    buffer.seek(0)
    assert torch.equal(torch.load(buffer)["src_tokens"], batch["net_input"]["src_tokens"])


def test_answers_are_for_one_padding_index():
    tokens = torch.tensor([[1, 5], [5, 5]])
    alias = answering(tokens, PAD)
    assert isinstance(alias.eq(PAD).any(), KnownBool) and bool(alias.eq(PAD).any())
    assert torch.is_tensor(alias.eq(5).any())
    assert torch.equal(alias.eq(PAD), torch.tensor([[True, False], [False, False]]))
    assert torch.is_tensor(tokens.eq(PAD).any()), "the batch's own tensor stays as it is"
    assert not KnownBool(False) and KnownBool(True).type_as(tokens) == 1.0 and KnownBool(True).item() is True


def test_models_can_still_be_scripted():
    torch.jit.script(toy_model())
