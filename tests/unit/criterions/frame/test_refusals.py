"""Models and backends that the methods cannot work with are refused with a reason, before the first update."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict

import pytest
import torch
from fairseq.models import FairseqMultiModel
from fairseq.tasks import FairseqTask
from torch import nn

from tests.unit.criterions.updates import make_criterion, run_update
from tests.unit.toy_models import as_namespace, toy_batch, toy_model, toy_task


def trainer_of(model, backend="pytorch_ddp"):
    cfg = as_namespace(distributed_training=as_namespace(ddp_backend=backend))
    return SimpleNamespace(cfg=cfg, model=model, get_model=lambda: model, get_num_updates=lambda: 0)


@pytest.mark.parametrize("backend", ["fully_sharded", "slowmo"])
@pytest.mark.parametrize("method", ["r3f", "freelb", "rdrop"])
def test_backends_of_one_pass(method, backend):
    criterion = make_criterion(f"{method}_label_smoothed")
    with pytest.raises(ValueError, match=f"--ddp-backend {backend} .*choose"):
        criterion.begin_training(trainer_of(toy_model(), backend), None)
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


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("r3f", "adv_passes", "concat"), ("smart", "adv_fraction", 0.5), ("arch", "cache_refresh", "cached")],
)
def test_more_or_fewer_rows_for_an_encoder_that_needs_all_of_them_sorted(name, option, value):
    criterion = make_criterion(f"{name}_label_smoothed", **{option: value})
    with pytest.raises(ValueError, match=rf"--{option.replace('_', '-')}.* LSTMModel needs them sorted by length"):
        criterion._check_model(toy_model("lstm"))
    criterion._check_model(toy_model())


def test_scalar_quantisation_noise():
    from fairseq.modules.quantization.scalar import quantize_model_

    model = toy_model()
    quantize_model_(model, p=0.2, bits=8, update_step=10)
    with pytest.raises(ValueError, match=r"--quant-noise-scalar .*train with --quant-noise-scalar 0"):
        make_criterion("r3f_label_smoothed").begin_training(trainer_of(model), None)


class Characters(nn.Module):
    """Words made of something else than a table."""

    def forward(self, tokens):
        return torch.zeros(*tokens.shape, 16)


def test_inputs_without_a_table_of_words():
    model = toy_model()
    model.encoder.embed_tokens = Characters()
    with pytest.raises(ValueError, match=r"cannot perturb side 'src' .*--adv-sides"):
        make_criterion("r3f_label_smoothed").begin_training(trainer_of(model), None)
    make_criterion("r3f_label_smoothed", adv_sides="tgt").begin_training(trainer_of(model), None)


def two_pairs():
    """A model for each of two language pairs, which share their encoder."""
    first, second = toy_model(), toy_model(seed=2)
    encoders = {"en-de": first.encoder, "de-en": first.encoder}
    return FairseqMultiModel(encoders, {"en-de": first.decoder, "de-en": second.decoder})


KEEPING: Dict[str, Dict[str, Any]] = {
    "arch": {},
    "conadv": {"conadv_mode": "shifted"},
    "freeat": {},
    "smart": {"smart_bregman": 0.5},
}


@pytest.mark.parametrize("method", KEEPING)
def test_methods_that_keep_something_for_each_sample_with_a_model_for_each_pair(method):
    criterion = make_criterion(f"{method}_label_smoothed", **KEEPING[method])
    with pytest.raises(ValueError, match=f"--.*{method}.* from update to update, .*language pairs"):
        criterion.begin_training(trainer_of(two_pairs()), None)


@pytest.mark.parametrize("method", ["disadv", "r3f", "smart"])
def test_each_pairs_model_is_hooked(method):
    model, criterion = two_pairs(), make_criterion(f"{method}_label_smoothed")
    criterion.begin_training(trainer_of(model), None)
    assert {id(each) for each in model.models.values()} == set(criterion._hooks)
    for each in model.models.values():
        assert run_update(criterion, each, [toy_batch()]).log["adv_loss"] > 0


class OwnLoop(FairseqTask):
    source_dictionary = target_dictionary = toy_task().source_dictionary

    def train_step(self, *args, **kwargs):
        raise NotImplementedError


def test_tasks_with_a_backward_pass_of_their_own():
    with pytest.raises(ValueError, match=r"OwnLoop runs the backward pass .*several of them"):
        make_criterion("disadv_label_smoothed", OwnLoop(None)).begin_training(trainer_of(toy_model()), None)
    make_criterion("r3f_label_smoothed", OwnLoop(None)).begin_training(trainer_of(toy_model()), None)


ASCENDING = {"arch": {"cache_neighbors": ""}, "smart": {}, "vat": {}, "freelb": {}, "scala": {}}
ONE_MASK_EACH = {"r3f": {}, "rdrop": {}, "simcut": {}, "disadv": {}, "freeat": {}, "scala": {"scala_loss": "ce"}}


def two_layers(dropout):
    return toy_model("lstm", dropout=dropout, encoder_layers=2, decoder_layers=2)


def check(method, options, model):
    make_criterion(f"{method}_label_smoothed", **options)._check_model(model)


@pytest.mark.parametrize("method", ASCENDING)
def test_dropout_between_the_layers_of_cudnns_lstm(method, monkeypatch):
    check(method, ASCENDING[method], two_layers(0.2))  # torch's own kernels draw from the generator
    monkeypatch.setattr("fairseq_adv.criterions.frame.perturbable.runs_on_cudnn", lambda module: True)
    with pytest.raises(ValueError, match=r"0\.2 between the layers of encoder\.lstm .*--encoder-dropout-out 0, with"):
        check(method, ASCENDING[method], two_layers(0.2))
    for replayed in (two_layers(0.0), toy_model("lstm", dropout=0.2), toy_model(dropout=0.2)):
        check(method, ASCENDING[method], replayed)


@pytest.mark.parametrize("method", ONE_MASK_EACH)
def test_methods_whose_passes_share_no_masks_train_cudnns_lstm(method, monkeypatch):
    monkeypatch.setattr("fairseq_adv.criterions.frame.perturbable.runs_on_cudnn", lambda module: True)
    check(method, ONE_MASK_EACH[method], two_layers(0.2))


def test_shared_masks_of_the_outer_pass_are_replayed_too(monkeypatch):
    monkeypatch.setattr("fairseq_adv.criterions.frame.perturbable.runs_on_cudnn", lambda module: True)
    with pytest.raises(ValueError, match=r"cannot be replayed"):
        check("r3f", {"adv_outer_masks": "shared"}, two_layers(0.2))
