"""--adv-vocabulary fused: every method's loss, log and gradient are those of the path that holds all logits."""

from __future__ import annotations

from typing import Any, Dict

import pytest
import torch
from fairseq import utils
from fairseq.models.transformer import TransformerDecoder

from fairseq_adv.criterions.heads.projection import plain_projection
from tests.unit.criterions.strong_methods import KNOWN_BEFOREHAND, WITH_DIVERGENCE, method
from tests.unit.criterions.test_identities import METHODS, NO_RADIUS, micro_batches
from tests.unit.criterions.updates import make_criterion, plain_criterion, run_update, same_bits
from tests.unit.toy_models import toy_batch, toy_model

# method and options -> what makes the penalty a visible part of the loss
CASES: Dict[str, Dict[str, Any]] = {
    **WITH_DIVERGENCE,
    **{f"{name} detached": {"adv_detach_clean": True, **options} for name, options in WITH_DIVERGENCE.items()},
    **{f"{name} perturbed": {"adv_objective": "perturbed", **options} for name, options in WITH_DIVERGENCE.items()},
    **{f"{name} concat": {"adv_passes": "concat", **options} for name, options in KNOWN_BEFOREHAND.items()},
    **{f"{name} recompute": {"adv_passes": "recompute", **options} for name, options in WITH_DIVERGENCE.items()},
    "rdrop": KNOWN_BEFOREHAND["rdrop"],
    "scala ce": {"scala_loss": "ce", "scala_radius": 0.6, "scala_step_size": 0.5},
    "smart bregman": {"smart_bregman": 0.5, "smart_momentum": 0.5, "adv_eps": 0.6},
    "freelb": {"adv_eps": 0.6, "adv_step_size": 0.3},
    "freeat": {"adv_eps": 0.6},
    "disadv": {"disadv_alpha": 0.5},
    "conadv": {"conadv_alpha": 0.5},
    "conadv shifted": {"conadv_mode": "shifted"},
}
MODELS = {"tied": "transformer_shared", "own": "transformer", "bias": "transformer"}


def network(kind, **options):
    """A Transformer whose projection is its embeddings, a matrix of its own, or one with a bias."""
    model = toy_model(MODELS[kind], **options)
    if kind == "bias":
        layer = model.decoder.output_projection
        layer.bias = torch.nn.Parameter(0.3 * torch.randn(layer.out_features))
    return model


def update_of(case, model, batch, vocabulary, **more):
    name = case.split()[0]
    options = {**CASES.get(case, {}), **more, "adv_vocabulary": vocabulary}
    criterion = method(name, batch, report_accuracy=True, **options)
    return run_update(criterion, model, [batch])


def assert_same_numbers(fused, full, relative):
    assert fused.loss.item() == pytest.approx(full.loss.item(), rel=relative)
    assert fused.log.keys() == full.log.keys()
    for key, value in full.log.items():
        assert float(fused.log[key]) == pytest.approx(float(value), rel=100 * relative, abs=relative), key


def distance(fused, full):
    """Of the gradients of two updates, relative to their size."""
    ours, theirs = (torch.cat([g.reshape(-1) for g in update.gradients]) for update in (fused, full))
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", MODELS)
def test_every_method_in_single_precision(case, kind):
    model, batch = network(kind, dropout=0.3), toy_batch()
    fused, full = (update_of(case, model, batch, vocabulary) for vocabulary in ("fused", "full"))
    assert_same_numbers(fused, full, 1e-6)
    assert 0 < distance(fused, full) <= 1e-6


@pytest.mark.parametrize("case", CASES)
def test_every_method_in_double_precision(case, monkeypatch):
    """Each parameter by itself: no rounding hides a small one's gradient. Perturbations are fp32 in any case."""
    monkeypatch.setattr(utils, "log_softmax", lambda x, dim, onnx_trace=False: x.log_softmax(dim))
    model, batch = network("bias", dropout=0.3).double(), toy_batch()
    fused, full = (update_of(case, model, batch, vocabulary) for vocabulary in ("fused", "full"))
    assert_same_numbers(fused, full, 1e-7)
    for ours, theirs in zip(fused.gradients, full.gradients):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm() + 1e-12


@pytest.mark.parametrize("case", ["r3f", "smart", "vat concat", "freelb"])
def test_micro_batches_and_activation_checkpoints(case):
    """Gradients of several micro-batches add up, and a layer that is computed again gives the same."""
    options = {**CASES.get(case, {}), "adv_seed": 1}
    runs = [
        run_update(
            make_criterion(f"{case.split()[0]}_label_smoothed", adv_vocabulary=vocabulary, **options),
            network("tied", dropout=0.3, checkpoint_activations=checkpoints),
            micro_batches(),
        )
        for vocabulary in ("fused", "full")
        for checkpoints in (False, True)
    ]
    for other in runs[1:]:
        assert distance(runs[0], other) <= 1e-6


# ---- plain training and evaluation -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("prefix", [0, 2])
def test_plain_updates(kind, smoothing, prefix):
    model = network(kind, dropout=0.3)
    theirs = plain_criterion()
    theirs.eps, theirs.ignore_prefix_size, theirs.report_accuracy = smoothing, prefix, True
    full = run_update(theirs, model, micro_batches())
    common = {"label_smoothing": smoothing, "ignore_prefix_size": prefix, "report_accuracy": True}
    own: Dict[str, Dict[str, Any]] = {"plain": {}, "r3f": {"adv_lambda": 0.0}, "smart": {"adv_start_update": "3"}}
    for name, options in own.items():
        ours = make_criterion(f"{name}_label_smoothed", adv_vocabulary="fused", **common, **options)
        fused = run_update(ours, model, micro_batches())
        assert fused.loss.item() == pytest.approx(full.loss.item(), rel=1e-6)
        assert 0 < distance(fused, full) <= 1e-6
        for key, value in full.log.items():
            assert float(fused.log[key]) == pytest.approx(float(value), rel=1e-6), key
        assert name != "plain" or fused.log.keys() == full.log.keys()


@pytest.mark.parametrize("case", NO_RADIUS)
def test_no_radius_is_plain_training_bit_for_bit(case):
    name, options = NO_RADIUS[case]
    model = toy_model("transformer_shared", dropout=0.3)
    ours = run_update(make_criterion(name, adv_vocabulary="fused", **options), model, micro_batches())
    state = torch.get_rng_state()
    plain = run_update(make_criterion("plain_label_smoothed"), model, micro_batches())
    assert torch.equal(state, torch.get_rng_state())
    if case in ("smart_detached", "scala_ce"):  # two backward passes add the same numbers in another order
        assert ours.loss == plain.loss and distance(ours, plain) <= 1e-6
    else:
        assert same_bits(ours, plain)


@pytest.mark.parametrize("name", [*METHODS, "plain_label_smoothed"])
@pytest.mark.parametrize("reduce", [True, False])
def test_evaluation_is_fairseqs_own(name, reduce):
    model, batch = toy_model(dropout=0.3).eval(), toy_batch()
    loss, size, log = make_criterion(name, adv_vocabulary="fused")(model, batch, reduce=reduce)
    expected, expected_size, expected_log = plain_criterion()(model, batch, reduce=reduce)
    assert torch.equal(loss, expected) and size == expected_size
    assert all(torch.equal(torch.as_tensor(log[k]), torch.as_tensor(v)) for k, v in expected_log.items())


# ---- what is fused and what is not -------------------------------------------------------------------------


def with_hook(model):
    model.decoder.output_projection.register_forward_hook(lambda *_: None)
    return model


def with_norm(model):
    torch.nn.utils.parametrizations.weight_norm(model.decoder.output_projection)
    return model


class OwnOutput(TransformerDecoder):
    def output_layer(self, features):
        return 2 * super().output_layer(features)


def with_own_output(model):
    model.decoder.__class__ = OwnOutput
    return model


UNFIT = {
    "lstm": lambda: toy_model("lstm"),
    "fconv": lambda: toy_model("fconv"),
    "lightconv": lambda: toy_model("lightconv"),
    "adaptive softmax": lambda: toy_model(adaptive_softmax_cutoff="8,16", criterion="adaptive_loss"),
    "hook": lambda: with_hook(toy_model()),
    "weight norm": lambda: with_norm(toy_model()),
    "own output": lambda: with_own_output(toy_model()),
}


@pytest.mark.parametrize("kind", [kind for kind in UNFIT if kind != "adaptive softmax"])  # it has no loss of that kind
def test_other_models_are_trained_as_ever_and_it_is_told_once(kind, caplog):
    caplog.set_level("INFO")
    model = UNFIT[kind]()
    own: Dict[str, Dict[str, Any]] = {"r3f": {"r3f_sigma": 0.3}, "smart": {}, "plain": {}}
    for name, options in own.items():
        caplog.clear()
        ours = make_criterion(f"{name}_label_smoothed", adv_vocabulary="fused", **options)
        fused = run_update(ours, model, micro_batches())
        assert [r.message for r in caplog.records if "--adv-vocabulary fused changes nothing" in r.message] != []
        assert len(caplog.records) == 1
        other = make_criterion(f"{name}_label_smoothed", adv_vocabulary="full", **options)
        assert same_bits(fused, run_update(other, model, micro_batches()))


@pytest.mark.parametrize("kind", UNFIT)
def test_a_projection_that_is_not_plain_is_found_out(kind):
    layer, reason = plain_projection(UNFIT[kind]())
    assert layer is None and reason


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_fused_is_not_made_at_once(kind):
    """The projection's layer is never called, neither by outer passes nor by the ascent."""
    model, calls = network(kind), []
    criterion = make_criterion("smart_label_smoothed", adv_vocabulary="fused")
    original = torch.nn.Linear.forward
    layer = model.decoder.output_projection

    def forward(self, values):
        calls.append(self is layer)
        return original(self, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Linear, "forward", forward)
        run_update(criterion, model, micro_batches())
    assert calls and not any(calls)


def test_an_ascent_asks_for_the_gradient_to_its_features_alone():
    model, batch = toy_model(), toy_batch()
    criterion = make_criterion("smart_label_smoothed", adv_vocabulary="fused")
    output = criterion.open_batch(model, batch).bare_pass()
    assert output.features.requires_grad and not output.weight.requires_grad
