"""Each option of each method changes the update, or is refused by name."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Dict

import pytest
import torch

from fairseq_adv.criterions.frame.config import AdversarialConfig, AscentConfig
from fairseq_adv.criterions.frame.honoured import ANY, NOT_HONOURED
from tests.unit.criterions.strong_methods import method
from tests.unit.criterions.test_sentence_methods import sentence_method
from tests.unit.criterions.updates import run_update, same_bits
from tests.unit.sentence_models import sentence_batch, sentence_model
from tests.unit.toy_models import toy_batch, toy_model

# what an option is set to, and what has to be set beside it (in both updates) for it to mean something
VALUES = {
    "adv_lambda": (0.0, {}),
    "adv_sides": ("src", {}),
    "adv_divergence": (None, {}),  # the other one
    "adv_detach_clean": (True, {}),
    "adv_start_update": (5, {}),
    "adv_every": (2, {}),
    "adv_fraction": (0.4, {}),
    "adv_radius_schedule": ("0.5@0", {}),
    "adv_objective": ("perturbed", {}),
    "adv_outer_masks": ("shared", {}),
    "adv_passes": ("concat", {}),
    "adv_seed": (7, {}),
    "adv_eps": (0.5, {"adv_step_size": 0.1}),
    "adv_steps": (2, {}),
    "adv_step_size": (0.03, {}),
    "adv_norm": ("linf", {}),
    "adv_level": ("word", {}),
    "adv_init": ("normal", {}),
    "adv_init_scale": (0.5, {}),
    "adv_init_sigma": (0.01, {}),
    "adv_gradient": ("raw", {}),
    "adv_preset": ("release", {}),
}
STRONG = {"r3f": {"r3f_sigma": 0.1}, "simcut": {"simcut_p": 0.3}}
MODES: Dict[str, Dict[str, Any]] = {"conadv": {"conadv_mode": "shifted"}, "conadv started": {"conadv_start_norm": 0.05}}
MODES.update({"scala": {}, "scala ce": {"scala_loss": "ce"}, "smart bregman": {"smart_bregman": 0.5}})
CASES: Dict[str, Dict[str, Any]] = {
    **{name: STRONG.get(name, {}) for name in ("r3f", "rdrop", "simcut", "vat")},
    **MODES,
}
CASES.update({"arch serving": {}, **{name: {} for name in ("disadv", "freeat", "freelb", "smart")}})
ASCENDS = ("freeat", "freelb", "smart")


# the cache of these tests is a fixed one, whatever the seed of its members and random neighbours
ELSEWHERE = {("arch serving", "adv_seed")}
HEADS = {"translation": 0, "classes": 3, "numbers": 1}


def common_options(kinds):
    return list(dict.fromkeys(f.name for kind in kinds for f in dataclasses.fields(kind) if not f.name.startswith("_")))


def options_of(case):
    kinds = [AdversarialConfig] + [AscentConfig] * case.startswith(ASCENDS)
    return [name for name in common_options(kinds) if (case, name) not in ELSEWHERE]


WALK = [(case, option, head) for case in CASES for option in options_of(case) for head in HEADS]


def third_update(case, head="translation", **options):
    """Of three updates, the first two without a step: what waits or is carried has then arrived."""
    classes, name, options = HEADS[head], case.split()[0], {**CASES[case], **options}
    if head == "translation":
        model, batch = toy_model(dropout=0.3), toy_batch()
        criterion = method(name, batch, **options)
    else:
        model, batch = sentence_model(classes, dropout=0.3), sentence_batch(classes=classes)
        criterion = sentence_method(name, batch, classes, **options)
    for update in range(2):
        criterion.train()
        run_update(criterion, model, [batch], update)
    criterion.train()
    return run_update(criterion, model, [batch], 3)


@functools.cache
def default_update(case, head, beside):
    return third_update(case, head, **dict(beside))


def value_of(option, case, head):
    if option == "adv_divergence":  # the other one
        return "sym-kl" if case.split()[0] in ("arch", "scala", "simcut", "vat") else "kl"
    if option == "adv_sides" and head != "translation":
        return "tgt"  # rows have one side, which src and both name
    return VALUES[option][0]


@pytest.mark.parametrize(("case", "option", "head"), WALK)
def test_an_option_changes_the_update_or_is_refused_by_name(case, option, head):
    value, beside = value_of(option, case, head), VALUES[option][1]
    default = default_update(case, head, tuple(beside.items()))
    name = f"--{option.replace('_', '-')}"
    try:
        changed = third_update(case, head, **{**beside, option: value})
    except ValueError as refusal:
        assert str(refusal).startswith(name), refusal
        return
    assert not same_bits(changed, default), f"{name} {value} changes nothing and is not refused"
    for key in (option, f"{option}={value}"):
        assert case not in NOT_HONOURED.get(key, {}), "the table says that it is refused"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("case", CASES)
def test_recomputed_passes_give_the_same_update_or_are_refused(case, head):
    refused = {name.split()[0] for key in ("adv_passes", "adv_passes=recompute") for name in NOT_HONOURED[key]}
    if case.split()[0] in refused - {"scala"} or case == "scala ce":
        with pytest.raises(ValueError, match=r"^--adv-passes must be left out"):
            third_update(case, head, adv_passes="recompute")
        return
    ours, default = third_update(case, head, adv_passes="recompute"), default_update(case, head, ())
    assert ours.loss.item() == pytest.approx(default.loss.item(), rel=1e-6)
    for got, wanted in zip(ours.gradients, default.gradients):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_every_common_option_is_walked():
    assert set(VALUES) == set(common_options([AdversarialConfig, AscentConfig]))


def test_the_table_names_methods_and_options_that_there_are():
    names = {case.split()[0] for case in CASES}
    assert {key.split("=")[0] for key in NOT_HONOURED} <= set(VALUES)
    assert {entry.split()[0] for methods in NOT_HONOURED.values() for entry in methods} <= {*names, ANY}


def test_updates_are_repeated_bit_for_bit():
    """Without this every option would seem to change something."""
    for case in CASES:
        assert same_bits(third_update(case), default_update(case, "translation", ()))
