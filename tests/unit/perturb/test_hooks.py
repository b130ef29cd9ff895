"""The embedding hook on real models, against editing the embedding table itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fairseq_adv.perturb.hooks import EmbeddingHook, without_activation_checkpoints
from fairseq_adv.perturb.layout import Perturbation, real_token_mask
from tests.unit.toy_models import ARCHITECTURES, toy_batch, toy_model

PADS = {"src": 1, "tgt": 1}
SRC = {"src": torch.tensor([[6, 7, 8, 9], [1, 1, 4, 5]]), "tgt": torch.tensor([[12, 13, 14], [10, 11, 1]])}


def unique_word_batch():
    """Every word occurs once, so δ of a position can be written into the row of its word."""
    return {"src_tokens": SRC["src"], "src_lengths": torch.tensor([4, 2]), "prev_output_tokens": SRC["tgt"]}


def random_delta(sides):
    generator = torch.Generator().manual_seed(0)
    masks = {s: real_token_mask(SRC[s], 1) for s in sides}
    values = {s: torch.randn(*m.shape, 16, generator=generator) * m.unsqueeze(-1) for s, m in masks.items()}
    return Perturbation(values, masks)


def edit_tables(model, delta):
    """Add δ to the embedding rows of the words at the perturbed positions."""
    tables = {"src": model.encoder.embed_tokens, "tgt": model.decoder.embed_tokens}
    with torch.no_grad():
        for side, values in delta.values.items():
            for b, tokens in enumerate(SRC[side].tolist()):
                for k, word in enumerate(t for t in tokens if t != 1):
                    tables[side].weight[word] += values[b, k]


def features(model, name):
    """The decoder's output before the (possibly tied) output layer, or the logits where that layer is not tied."""
    tied = name.startswith(("transformer", "lightconv"))
    with torch.no_grad():
        return model(**unique_word_batch(), **({"features_only": True} if tied and name != "lightconv" else {}))[0]


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize("sides", [("src", "tgt"), ("src",), ("tgt",)])
def test_adding_equals_editing_the_embedding_table(name, sides):
    model, delta = toy_model(name), random_delta(sides)
    hook = EmbeddingHook(model, {s: PADS[s] for s in sides})
    with hook.adding(delta):
        hooked = features(model, name)
    clean = features(model, name)
    hook.remove()
    edit_tables(model, delta)
    torch.testing.assert_close(hooked, features(model, name), rtol=1e-5, atol=1e-6)
    assert (hooked - clean).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_zero_perturbation_changes_no_bit_and_dims_are_known(name):
    model, batch = toy_model(name), toy_batch()["net_input"]
    plain = model(**batch)[0]
    hook = EmbeddingHook(model, PADS)
    assert hook.dims == {"src": 16, "tgt": 16}
    masks = {"src": real_token_mask(batch["src_tokens"], 1), "tgt": real_token_mask(batch["prev_output_tokens"], 1)}
    zero = Perturbation({s: torch.zeros(*m.shape, 16) for s, m in masks.items()}, masks)
    with hook.adding(zero):
        assert torch.equal(model(**batch)[0], plain)
    assert torch.equal(model(**batch)[0], plain)


def test_hook_survives_an_exception_inside_the_model():
    model = toy_model("transformer_shared")
    hook, delta = EmbeddingHook(model, PADS), random_delta(("tgt",))
    with pytest.raises(AttributeError), hook.adding(delta):
        model(src_tokens=None, src_lengths=None, prev_output_tokens=None)
    clean = toy_model("transformer_shared")
    assert torch.equal(features(model, "transformer_shared"), features(clean, "transformer_shared"))


def test_checkpointed_layers_run_their_own_forward_inside():
    model = toy_model("transformer", checkpoint_activations=True)
    hook = EmbeddingHook(model, PADS)
    masks = {"src": real_token_mask(SRC["src"], 1)}
    leaf = torch.zeros(*masks["src"].shape, 16, requires_grad=True)

    def loss():
        with hook.adding(Perturbation({"src": leaf}, masks)):
            return model(**unique_word_batch())[0].square().sum()

    with pytest.raises(RuntimeError):
        torch.autograd.grad(loss(), leaf)
    with without_activation_checkpoints(model):
        (gradient,) = torch.autograd.grad(loss(), leaf)
    plain = toy_model("transformer")
    plain_hook = EmbeddingHook(plain, PADS)
    with plain_hook.adding(Perturbation({"src": leaf}, masks)):
        (expected,) = torch.autograd.grad(plain(**unique_word_batch())[0].square().sum(), leaf)
    torch.testing.assert_close(gradient, expected)
    loss().backward()  # outside, the checkpoints work as before


def test_model_without_word_embeddings_is_refused():
    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(2, 2)
            self.decoder = nn.Module()
            self.decoder.embed_tokens = nn.Embedding(4, 2)

    with pytest.raises(ValueError, match=r"side 'src': Speech has no encoder\.embed_tokens"):
        EmbeddingHook(Speech(), PADS)
    EmbeddingHook(Speech(), {"tgt": 1})


def test_compiled_model_is_refused():
    model = toy_model()
    model.encoder.layers[0].compile()
    with pytest.raises(ValueError, match=r"encoder\.layers\.0.*compiled"):
        EmbeddingHook(model, PADS)
    compiled: Any = torch.compile(toy_model())
    with pytest.raises(ValueError, match="compiled"):
        EmbeddingHook(compiled, PADS)
