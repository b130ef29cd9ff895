"""Models and backends that the methods cannot work with are refused with a reason, before the first update."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.unit.criterions.updates import make_criterion
from tests.unit.toy_models import as_namespace, toy_batch, toy_model


def trainer_of(model, backend="pytorch_ddp"):
    cfg = as_namespace(distributed_training=as_namespace(ddp_backend=backend))
    return SimpleNamespace(cfg=cfg, model=model, get_model=lambda: model, get_num_updates=lambda: 0)


@pytest.mark.parametrize("method", ["r3f", "freelb", "rdrop"])
def test_fully_sharded_models(method):
    criterion = make_criterion(f"{method}_label_smoothed")
    with pytest.raises(ValueError, match=r"--ddp-backend fully_sharded .*choose"):
        criterion.begin_training(trainer_of(toy_model(), "fully_sharded"), None)
    criterion.begin_training(trainer_of(toy_model()), None)


def test_compiled_models():
    model = torch.compile(toy_model())
    with pytest.raises(ValueError, match=r"compiled.*without torch\.compile"):
        make_criterion("r3f_label_smoothed").begin_training(trainer_of(model), None)


class DecoderOnly(nn.Module):
    """A language model: one decoder."""

    def __init__(self):
        super().__init__()
        self.decoder = toy_model().decoder

    def forward(self, src_tokens):
        return self.decoder(src_tokens)


@pytest.mark.parametrize("sides", ["both", "src"])
def test_source_side_of_a_decoder_only_model(sides):
    criterion = make_criterion("smart_label_smoothed", adv_sides=sides)
    with pytest.raises(ValueError, match=r"DecoderOnly has no encoder\.embed_tokens.*--adv-sides"):
        criterion.begin_training(trainer_of(DecoderOnly()), None)


def test_plain_training_refuses_no_model():
    criterion = make_criterion("smart_label_smoothed", adv_lambda=0.0)
    criterion.begin_training(trainer_of(DecoderOnly()), None)


def test_one_pass_over_twice_the_rows_of_an_encoder_that_needs_sorted_lengths():
    criterion = make_criterion("r3f_label_smoothed", adv_passes="concat")
    with pytest.raises(ValueError, match=r"--adv-passes concat.*sequential"):
        criterion(toy_model("lstm"), toy_batch())
