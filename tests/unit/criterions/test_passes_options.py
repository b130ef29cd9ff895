"""How the outer passes run, and which output is trained: --adv-passes, --adv-detach-clean, --adv-objective."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict

import pytest
import torch

from tests.unit.criterions import reference as ref
from tests.unit.criterions.strong_methods import (
    KNOWN_BEFOREHAND,
    LAMBDA,
    WITH_DIVERGENCE,
    cached_words,
    method,
)
from tests.unit.criterions.test_identities import assert_plain, micro_batches
from tests.unit.criterions.test_simcut import cut_words
from tests.unit.criterions.test_smart import worst_case
from tests.unit.criterions.updates import (
    assert_matches,
    honoured,
    make_criterion,
    noise_in_columns,
    run_update,
    same_bits,
)
from tests.unit.toy_models import toy_batch, toy_model

ONE_LOSS: Dict[str, Dict[str, Any]] = {
    "conadv": {},
    "disadv": {},
    "freeat": {},
    "freelb": {},
    "rdrop": {},
    "scala": {"scala_loss": "ce"},
    "smart": {"smart_bregman": 0.5},
}


def loss_at_once(criterion, model, batch):
    """Loss and gradient of the sum of all terms from one backward pass, without the criterion's own loop."""
    model.zero_grad()
    torch.manual_seed(5)
    criterion.begin_micro_batch(0, dummy_batch=False)
    loss, _, _ = criterion(model, batch)
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def backward_passes(criterion, model, batch):
    """How many terms the criterion propagates back in one update."""
    terms = []

    def backward(loss):
        terms.append(loss)
        loss.backward()

    torch.manual_seed(5)
    model.zero_grad()
    criterion.begin_micro_batch(0, dummy_batch=False)
    assert criterion.drives_backward()
    criterion.train_step(batch, model, SimpleNamespace(backward=backward), 0)
    return len(terms)


# ---- --adv-passes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN_BEFOREHAND)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("architecture", ["transformer", "transformer_shared", "fconv"])
def test_one_pass_over_twice_the_rows_is_two_passes(name, detach, architecture):
    model, batch = toy_model(architecture).double(), toy_batch()
    options = honoured(f"{name}_label_smoothed", **KNOWN_BEFOREHAND[name], adv_detach_clean=detach)
    updates = {
        passes: run_update(method(name, batch, adv_passes=passes, **options), model, [batch])
        for passes in ("sequential", "concat")
    }
    together, apart = updates["concat"], updates["sequential"]
    assert together.loss.item() == pytest.approx(apart.loss.item(), rel=1e-9)
    for ours, other in zip(together.gradients, apart.gradients):
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-8)
    assert together.log.keys() == apart.log.keys()
    for key, value in apart.log.items():
        assert float(together.log[key]) == pytest.approx(float(value), rel=1e-6), key


@pytest.mark.parametrize("name", KNOWN_BEFOREHAND)
def test_concat_runs_one_pass(name):
    model, batch, rows = toy_model(), toy_batch(), []
    model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["src_tokens"])), with_kwargs=True)
    run_update(method(name, batch, adv_passes="concat", **KNOWN_BEFOREHAND[name]), model, [batch])
    assert rows[-1] == 6  # conadv took its gradient before, on the three rows
    assert rows[:-1] == ([3] if name == "conadv" else [])


@pytest.mark.parametrize("name", [*WITH_DIVERGENCE, "rdrop", "smart bregman"])
@pytest.mark.parametrize("masks", ["fresh", "shared"])
def test_recomputing_gives_the_gradient_of_both_graphs_at_once(name, masks):
    """Both directions of the divergence's gradient are kept, and both perturbed passes have the same masks."""
    batch, states, graphs = toy_batch(), [], []
    options = {"smart_bregman": 0.5} if name.endswith("bregman") else {}
    options.update({**WITH_DIVERGENCE, "rdrop": {"rdrop_alpha": 2.0}}[name.split()[0]])
    options = honoured(f"{name.split()[0]}_label_smoothed", adv_outer_masks=masks, **options)
    model = toy_model("transformer_shared", dropout=0.3).double()
    both = run_update(method(name.split()[0], batch, **options), model, [batch])
    state = torch.get_rng_state()
    model.register_forward_pre_hook(lambda *_: states.append(torch.get_rng_state()))
    model.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    ours = run_update(method(name.split()[0], batch, adv_passes="recompute", **options), model, [batch])
    assert ours.loss.item() == pytest.approx(both.loss.item(), rel=1e-12)
    for got, wanted in zip(ours.gradients, both.gradients):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    assert ours.log.keys() == both.log.keys()
    for key, value in both.log.items():
        assert float(ours.log[key]) == pytest.approx(float(value), rel=1e-6), key
    assert torch.equal(torch.get_rng_state(), state), "the next batch sees other random numbers"
    outer = [i for i, _ in enumerate(graphs) if i == 0 or not graphs[i] or i == len(graphs) - 1]
    assert graphs[-1] and not graphs[outer[1]] and torch.equal(states[-1], states[outer[1]])


@pytest.mark.parametrize("name", WITH_DIVERGENCE)
def test_recomputing_holds_one_graph_at_a_time(name):
    model, batch = toy_model(), toy_batch()
    criterion = method(name, batch, adv_passes="recompute", **WITH_DIVERGENCE[name])
    assert backward_passes(criterion, model, batch) == 2


@pytest.mark.parametrize("beside", [{"adv_detach_clean": True}, {"adv_objective": "perturbed"}])
def test_recomputing_is_refused_where_one_graph_is_held_in_any_case(beside):
    with pytest.raises(ValueError, match="--adv-passes recompute must be left out with --adv-"):
        make_criterion("r3f_label_smoothed", adv_passes="recompute", **beside)


# ---- --adv-detach-clean ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_DIVERGENCE)
def test_two_backward_passes_give_the_gradient_of_the_sum(name):
    model, batch = toy_model("transformer_shared", dropout=0.3).double(), toy_batch()
    criterion = method(name, batch, adv_detach_clean=True, **WITH_DIVERGENCE[name])
    assert backward_passes(criterion, model, batch) == 2
    update = run_update(criterion, model, [batch])
    loss, gradients = loss_at_once(criterion, model, batch)
    assert update.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert update.log["adv_loss"] > 1e-2
    for (parameter, _), ours, wanted in zip(model.named_parameters(), update.gradients, gradients):
        wanted = torch.zeros_like(ours) if wanted is None else wanted
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-7, msg=parameter)


# ---- --adv-objective ---------------------------------------------------------------------------------------


def perturbed_output(name, model, batch):
    """Log-probs at the method's perturbed input, found independently."""
    sides = ("src", "tgt")
    if name == "simcut":
        embeddings = {side: ref.word_embeddings(model, batch, side) for side in sides}
        for side, rows in cut_words(batch, 0.4, sides).items():
            kept = torch.ones(*embeddings[side].shape[:2], 1, dtype=torch.float64)
            for b, columns in enumerate(rows):
                kept[b, columns] = 0.0
            embeddings[side] = embeddings[side] * kept
        return ref.log_probs_of(model, batch, embeddings["src"], embeddings["tgt"])
    return ref.output(model, batch, perturbation(name, model, batch, sides))


def perturbation(name, model, batch, sides):
    if name == "arch":
        words = cached_words(batch)
        return {side: ref.in_columns(words[side].double(), batch["net_input"][ref.TOKENS[side]]) for side in sides}
    if name == "r3f":
        return {side: 0.3 * values for side, values in noise_in_columns("normal", batch).items()}
    if name == "smart":
        return worst_case(model, batch, ref.symmetric_kl, 3, sides)
    clean = ref.output(model, batch, {}).detach()
    start = noise_in_columns("normal", batch)
    if name == "vat":
        start = ref.each_sentence(start, batch, lambda words: ref.of_norm(words, 1.0))
    else:
        start = {side: 0.05 * values for side, values in start.items()}
    gradient = ref.gradient_at(start, lambda d: ref.kl(clean, ref.output(model, batch, d), batch))
    if name == "vat":
        return ref.each_sentence(gradient, batch, lambda words: ref.of_norm(words, 0.8))
    return ref.step(start, gradient, batch, 0.5, 0.6)


def divergence(name, p, q, batch):
    if name == "r3f":
        return ref.kl(p, q, batch) + ref.kl(q, p, batch)
    return ref.symmetric_kl(p, q, batch) if name == "smart" else ref.kl(p, q, batch)


@pytest.mark.parametrize("name", WITH_DIVERGENCE)
@pytest.mark.parametrize("detach", [False, True])  # says nothing new: the clean output has no graph
def test_training_on_the_perturbed_input(name, detach):
    model, batch = toy_model("transformer_shared").double(), toy_batch()
    options = {**WITH_DIVERGENCE[name], "adv_detach_clean": detach}
    update = run_update(method(name, batch, adv_objective="perturbed", **options), model, [batch])
    p, q = ref.output(model, batch, {}).detach(), perturbed_output(name, model, batch)
    penalty = divergence(name, p, q, batch)
    assert penalty > 1e-2
    assert_matches(update, model, ref.cross_entropy(q, batch) + LAMBDA * penalty)
    assert update.log["adv_loss"].item() == pytest.approx(penalty.item(), rel=1e-4)
    assert update.log["nll_loss"].item() == pytest.approx(ref.cross_entropy(q, batch, 0.0).item(), rel=1e-6)


@pytest.mark.parametrize("name", WITH_DIVERGENCE)
def test_only_the_perturbed_pass_is_propagated_back(name):
    """4 units instead of 6: besides the ascent's, one pass with a graph and one without."""
    model, batch, graphs = toy_model(), toy_batch(), []
    model.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    run_update(method(name, batch, adv_objective="perturbed", **WITH_DIVERGENCE[name]), model, [batch])
    inner = {"smart": 3, "vat": 1, "scala": 1}.get(name, 0)
    assert graphs == [False, *[True] * inner, True]


@pytest.mark.parametrize("name", ["r3f", "simcut", "smart", "vat"])
def test_perturbed_objective_without_perturbation_is_plain_training(name):
    none = {"r3f": "r3f_sigma", "simcut": "simcut_p", "smart": "adv_eps", "vat": "vat_eps"}[name]
    options = {none: 0.0, "adv_outer_masks": "shared", "adv_objective": "perturbed"}
    assert_plain(f"{name}_label_smoothed", toy_model(dropout=0.3), micro_batches(), **options)


def test_perturbed_objective_leaves_the_masks_of_the_clean_pass_to_plain_training():
    """What follows a batch sees the same random numbers, whichever output is trained."""
    model, states, updates = toy_model(dropout=0.3), [], []
    for objective in ("clean", "perturbed"):
        criterion = make_criterion("r3f_label_smoothed", adv_objective=objective)
        updates.append(run_update(criterion, model, micro_batches()))
        states.append(torch.get_rng_state())
    assert torch.equal(*states) and not same_bits(*updates)


@pytest.mark.parametrize("name", ONE_LOSS)
def test_methods_without_a_divergence_beside_the_loss_refuse_the_perturbed_objective(name):
    with pytest.raises(ValueError, match="--adv-objective perturbed"):
        make_criterion(f"{name}_label_smoothed", adv_objective="perturbed", **ONE_LOSS[name])


def test_perturbed_objective_cannot_share_one_pass():
    with pytest.raises(ValueError, match="--adv-objective perturbed needs --adv-passes sequential"):
        make_criterion("r3f_label_smoothed", adv_objective="perturbed", adv_passes="concat")
