"""Where every method must be plain training, bit for bit: without strength, and in evaluation."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import pytest
import torch
from fairseq.criterions import CRITERION_REGISTRY

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.training_log import LOG_KEYS
from fairseq_adv.criterions.heads.translation import TranslationHead
from tests.unit.criterions.updates import honoured, make_criterion, plain_criterion, run_update, same_bits
from tests.unit.toy_models import toy_batch, toy_model

METHODS = sorted(
    name
    for name, cls in CRITERION_REGISTRY.items()
    if issubclass(cls, AdversarialCriterion) and cls.head_type is TranslationHead
)
MODELS = ["transformer", "transformer_shared", "lstm"]
SHARED = {"adv_outer_masks": "shared"}
# Nothing to add although the method's passes run; fresh masks alone would already regularise.
NO_RADIUS: Dict[str, Tuple[str, Dict[str, Any]]] = {
    "smart": ("smart_label_smoothed", {"adv_eps": 0.0, **SHARED}),
    "smart_detached": ("smart_label_smoothed", {"adv_eps": 0.0, "adv_detach_clean": True, **SHARED}),
    "smart_steps": ("smart_label_smoothed", {"adv_steps": 0, "adv_init": "zero", **SHARED}),
    "r3f": ("r3f_label_smoothed", {"r3f_sigma": 0.0, **SHARED}),
    "vat": ("vat_label_smoothed", {"vat_eps": 0.0, **SHARED}),
    "simcut": ("simcut_label_smoothed", {"simcut_p": 0.0, **SHARED}),
    "scala": ("scala_label_smoothed", {"scala_radius": 0.0, **SHARED}),
    "scala_ce": ("scala_label_smoothed", {"scala_radius": 0.0, "scala_loss": "ce", **SHARED}),
    "freelb": ("freelb_label_smoothed", {"adv_steps": 1, "adv_eps": 0.0}),
    "schedule": ("vat_label_smoothed", {"adv_radius_schedule": "0@0", **SHARED}),
}


def micro_batches():
    return [toy_batch(seed=1), toy_batch((7, 2), (3, 4), seed=2, first_id=3)]


def assert_plain(name, model, batches, update_num=0, **options):
    ours = run_update(make_criterion(name, **options), model, batches, update_num)
    state = torch.get_rng_state()
    plain = run_update(plain_criterion(), model, batches, update_num)
    assert same_bits(ours, plain)
    assert torch.equal(state, torch.get_rng_state())  # and what follows sees the same random numbers


def test_all_methods_are_found():
    assert len(METHODS) >= 9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_lambda_zero(method, model):
    assert_plain(method, toy_model(model, dropout=0.3), micro_batches(), adv_lambda=0.0)


@pytest.mark.parametrize(("method", "option"), [("rdrop", "rdrop_alpha"), ("simcut", "simcut_alpha")])
def test_alpha_zero(method, option):
    assert_plain(f"{method}_label_smoothed", toy_model(dropout=0.3), micro_batches(), **{option: 0.0})


@pytest.mark.parametrize("case", NO_RADIUS)
@pytest.mark.parametrize("model", MODELS)
def test_radius_zero_with_shared_masks(case, model):
    name, options = NO_RADIUS[case]
    assert_plain(name, toy_model(model, dropout=0.3), micro_batches(), **options)


@pytest.mark.parametrize("passes", ["sequential", "concat"])
def test_ignored_prefix(passes):
    """Target words that the loss leaves out do not count in the divergence either."""
    model, batch = toy_model(), toy_batch()
    plain = plain_criterion()
    plain.ignore_prefix_size = 2
    expected = run_update(plain, model, [batch])
    options = {"ignore_prefix_size": 2, "adv_passes": passes}
    silent = run_update(make_criterion("r3f_label_smoothed", r3f_sigma=0.0, **options), model, [batch])
    assert silent.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    loud, whole = (
        run_update(make_criterion("r3f_label_smoothed", r3f_sigma=0.3, **o), model, [batch]).log["adv_loss"]
        for o in (options, {})
    )
    assert 0 < loud < whole


@pytest.mark.parametrize("model", MODELS)
def test_disadv_without_radius_is_twice_half_the_plain_gradient(model):
    options = {"disadv_alpha": 0.0, **SHARED}
    assert_plain("disadv_label_smoothed", toy_model(model, dropout=0.3), [toy_batch()], **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("update_num", "options"), [(2, {"adv_start_update": 3}), (4, {"adv_every": 3})])
def test_updates_before_the_start_and_between_regularised_ones(method, update_num, options):
    if not honoured(method, **options):  # FreeAT's replays come in a row
        options, update_num = {"adv_start_update": 5}, 4
    assert_plain(method, toy_model(dropout=0.3), micro_batches(), update_num, **options)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "arch_label_smoothed"])  # counts whole epochs
@pytest.mark.parametrize(("update_num", "options"), [(3, {"adv_start_update": 3}), (6, {"adv_every": 3})])
def test_updates_from_the_start_on_are_regularised(method, update_num, options):
    model, options = toy_model(dropout=0.3), honoured(method, **options)
    ours = run_update(make_criterion(method, **options), model, micro_batches(), update_num)
    assert not same_bits(ours, run_update(plain_criterion(), model, micro_batches(), update_num))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("reduce", [True, False])
def test_evaluation_is_label_smoothed_cross_entropy(method, model, reduce):
    network, batch = toy_model(model, dropout=0.3).eval(), toy_batch()
    criterion = make_criterion(method, report_accuracy=True)
    plain = plain_criterion()
    plain.report_accuracy = True
    loss, size, log = criterion(network, batch, reduce=reduce)
    expected, expected_size, expected_log = plain(network, batch, reduce=reduce)
    assert torch.equal(loss, expected) and size == expected_size
    for key, value in expected_log.items():
        assert torch.equal(torch.as_tensor(log.pop(key)), torch.as_tensor(value)), key
    assert log == dict.fromkeys(LOG_KEYS, 0)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "arch_label_smoothed"])
def test_accuracy_in_training_costs_no_pass_and_no_random_number(method):
    network, batch, passes = toy_model(dropout=0.3), toy_batch(), []
    network.register_forward_pre_hook(lambda *_: passes.append(1))
    without = run_update(make_criterion(method), network, [batch])
    state, count = torch.get_rng_state(), len(passes)
    counted = run_update(make_criterion(method, report_accuracy=True), network, [batch])
    assert same_bits(without, counted) and len(passes) == 2 * count
    assert torch.equal(state, torch.get_rng_state())
    assert 0 <= counted.log["n_correct"] <= counted.log["total"] == batch["ntokens"]


@pytest.mark.parametrize("method", [m for m in METHODS if m != "arch_label_smoothed"])
@pytest.mark.parametrize("accuracy", [False, True])
def test_logs_of_dummy_plain_and_regularised_batches_line_up(method, accuracy):
    """Fairseq adds the logs of the ranks up by position, tensors apart from numbers."""
    model, batch = toy_model(), toy_batch()
    criterion = make_criterion(method, report_accuracy=accuracy, adv_start_update=1)
    logs = [run_update(criterion, model, [batch], update_num).log for update_num in (0, 1)]
    criterion.begin_micro_batch(1, dummy_batch=True)
    logs.append(criterion(model, batch)[2])
    for log in logs[1:]:
        assert [(key, torch.is_tensor(value)) for key, value in log.items()] == [
            (key, torch.is_tensor(value)) for key, value in logs[0].items()
        ]
