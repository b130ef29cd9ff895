"""The eps of LayerNorms, on the command line and in the model."""

from __future__ import annotations

import argparse

import pytest
import torch
from fairseq.models import ARCH_CONFIG_REGISTRY

from fairseq_adv.models.adv_roberta import AdvRobertaModel, set_layernorm_eps


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    AdvRobertaModel.add_args(parser)
    args = parser.parse_args(words)
    ARCH_CONFIG_REGISTRY["adv_roberta"](args)
    return args


def test_the_default_is_that_of_bert_and_the_command_line_wins():
    assert parsed().adv_layernorm_eps == 1e-12
    assert parsed("--adv-layernorm-eps", "1e-5").adv_layernorm_eps == 1e-5
    assert parsed("--encoder-layers", "3").encoder_layers == 3
    assert parsed("--adv-freeze-encoder").adv_freeze_encoder and not parsed().adv_freeze_encoder


def test_every_layernorm_is_set():
    first, second = torch.nn.LayerNorm(4), torch.nn.LayerNorm(4)
    model = torch.nn.Sequential(first, torch.nn.Sequential(torch.nn.Linear(4, 4), second))
    set_layernorm_eps(model, 0.25)
    assert [first.eps, second.eps] == [0.25, 0.25]
    centred = torch.tensor([[1.0, -1.0, 1.0, -1.0]])  # variance 1
    assert torch.allclose(model[0](centred), centred / 1.25**0.5)


@pytest.mark.parametrize("eps", [0.0, -1e-5, float("inf"), float("nan")])
def test_impossible_values_are_refused(eps):
    with pytest.raises(ValueError, match="--adv-layernorm-eps must be finite and > 0"):
        set_layernorm_eps(torch.nn.LayerNorm(2), eps)
