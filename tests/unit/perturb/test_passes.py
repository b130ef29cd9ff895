"""Dropout masks of the extra passes, and the generators they must leave alone."""

import pytest
import torch

from fairseq_adv.perturb import BatchPasses, EmbeddingHook
from tests.unit.toy_models import toy_batch, toy_model


def passes_over(name="transformer", shared_masks=False, dropout=0.3):
    model, batch = toy_model(name, dropout=dropout), toy_batch()
    inputs = batch["net_input"]
    hook = EmbeddingHook(model, {"src": 1, "tgt": 1})

    def run():
        return torch.log_softmax(model(**inputs)[0].float(), dim=-1).flatten(0, 1)

    tokens = {"src": inputs["src_tokens"], "tgt": inputs["prev_output_tokens"]}
    return BatchPasses(run, run, hook, tokens, batch["id"], shared_masks), run


@pytest.mark.parametrize("name", ["transformer", "lstm", "fconv"])
def test_inner_passes_replay_the_clean_masks(name):
    passes, _ = passes_over(name)
    torch.manual_seed(1)
    clean = passes.clean()
    zero = passes.zero()
    assert torch.equal(passes.inner(zero), clean)
    assert torch.equal(passes.inner(zero), clean)


@pytest.mark.parametrize("shared", [True, False])
def test_outer_pass_shares_or_renews_the_masks(shared):
    passes, _ = passes_over(shared_masks=shared)
    torch.manual_seed(1)
    clean = passes.clean()
    assert torch.equal(passes.perturbed(passes.zero()), clean) == shared


@pytest.mark.parametrize("shared", [True, False])
def test_plain_training_sees_the_same_numbers_with_and_without_extra_passes(shared):
    passes, run = passes_over(shared_masks=shared)
    torch.manual_seed(1)
    expected = [run(), run()]  # two micro-batches of plain training
    torch.manual_seed(1)
    clean = passes.clean()
    zero = passes.zero()
    passes.inner(zero)
    passes.perturbed(zero)
    assert torch.equal(clean, expected[0])
    assert torch.equal(run(), expected[1])


def test_fresh_masks_are_not_those_of_the_next_plain_pass():
    passes, run = passes_over(shared_masks=False)
    torch.manual_seed(1)
    passes.clean()
    perturbed = passes.perturbed(passes.zero())
    assert not torch.equal(perturbed, run())


def test_generators_are_restored_after_an_exception():
    passes, _ = passes_over()
    torch.manual_seed(1)
    passes.clean()
    state = torch.get_rng_state()

    def fail():
        torch.rand(3)
        raise RuntimeError("inside the model")

    passes._outer = fail
    with pytest.raises(RuntimeError, match="inside the model"):
        passes.perturbed(passes.zero())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_clean_pass_comes_first():
    passes, _ = passes_over()
    with pytest.raises(RuntimeError, match="clean pass comes first"):
        passes.perturbed(passes.zero())
