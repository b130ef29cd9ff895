"""Loss, perturbations and translations of a model under evaluation conditions."""

from __future__ import annotations

from typing import Any, Dict

import pytest
import torch
from fairseq.models.lstm import LSTMModel
from fairseq.tasks.translation import TranslationTask

from fairseq_adv.perturb import Perturbation
from fairseq_adv.probe.trained_model import TrainedModel, target_tokens
from tests.unit.toy_models import toy_batch, toy_model, toy_task


class SmallTask(TranslationTask):
    def __init__(self) -> None:
        task = toy_task()
        super().__init__(task, task.src_dict, task.tgt_dict)


@pytest.fixture(params=["transformer", "transformer_shared", "lstm"])
def model(request: pytest.FixtureRequest) -> TrainedModel:
    return TrainedModel(toy_model(request.param, dropout=0.5), SmallTask())


def nll_by_hand(model: TrainedModel, sample: Dict[str, Any]) -> float:
    """Sentence by sentence, token by token."""
    total = 0.0
    with torch.no_grad():
        log_probs = torch.log_softmax(model.model(**sample["net_input"])[0].double(), dim=-1)
    for row, sentence in enumerate(sample["target"].tolist()):
        total -= sum(float(log_probs[row, place, token]) for place, token in enumerate(sentence) if token != 1)
    return total


def test_nll_counts_real_target_tokens(model: TrainedModel) -> None:
    sample = toy_batch()
    assert float(model.nll(sample)) == pytest.approx(nll_by_hand(model, sample), rel=1e-5)
    assert model.sentence_nll(sample).shape == (3,) and float(model.sentence_nll(sample)[0]) < float(model.nll(sample))
    assert target_tokens(sample, model.pads) == 4 + 2 + 6 + 3


def at(model: TrainedModel, sample: Dict[str, Any], delta: Perturbation) -> float:
    with torch.no_grad(), model.moved_by(delta):
        return float(model.nll(sample))


def test_the_worst_case_is_worse_than_many_random_directions(model: TrainedModel) -> None:
    sample, radius = toy_batch(), 0.5
    worst = model.worst_case(sample, radius, ("src", "tgt"), steps=5)
    for side in ("src", "tgt"):
        assert (worst.sentence_norms(side) <= radius * (1 + 1e-5)).all()
    random = [model.random_perturbation(sample, radius, ("src", "tgt"), seed) for seed in range(40)]
    assert torch.allclose(random[0].sentence_norms("src"), torch.full((3,), radius))
    losses = [at(model, sample, delta) for delta in random]
    assert at(model, sample, worst) > max(losses) and len(set(losses)) > 1


def test_a_sentence_gets_its_random_direction_in_any_batch(model: TrainedModel) -> None:
    both, alone = toy_batch((5, 3, 1), (4, 2, 6)), toy_batch((5, 3, 1), (4, 2, 6), first_id=1)
    a = model.random_perturbation(both, 1.0, ("src",), seed=3).values["src"]
    b = model.random_perturbation(alone, 1.0, ("src",), seed=3).values["src"]
    assert torch.equal(a[1, :4], b[0, :4]) is False  # other lengths: other real tokens, so other norms
    torch.testing.assert_close(a[1, 0] / a[1, 0].norm(), b[0, 0] / b[0, 0].norm())


def test_translations_are_those_of_moved_embeddings(model: TrainedModel) -> None:
    """A δ that turns each source word into another one translates as the batch of those words does."""
    sample, other = toy_batch(), toy_batch()
    tokens = sample["net_input"]["src_tokens"]
    words = tokens.gt(3)
    moved = torch.where(words, 4 + (tokens - 4 + 7) % 20, tokens)
    other["net_input"]["src_tokens"] = moved
    weight = model.model.encoder.embed_tokens.weight.detach()
    delta = model._zero(sample, ("src",))
    for row in range(len(tokens)):
        real = tokens[row].ne(1)
        delta.values["src"][row, : int(real.sum())] = (weight[moved[row]] - weight[tokens[row]])[real]
    expected, found = model.translate(other), model.translate(sample, delta)
    plain = model.translate(sample)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert model.translate(sample).keys() == plain.keys()
    assert all(torch.equal(plain[key], again) for key, again in model.translate(sample).items())
    if not isinstance(model.model, LSTMModel):  # untrained, it hardly listens to its source
        assert any(not torch.equal(plain[key], found[key]) for key in plain)


def test_parameters_are_as_before(model: TrainedModel) -> None:
    before = [p.detach().clone() for p in model.model.parameters()]
    sample = toy_batch()
    model.worst_case(sample, 1.0, ("src", "tgt"), steps=2)
    model.translate(sample)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.model.parameters()))
