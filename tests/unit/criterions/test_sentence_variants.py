"""What options make of the methods on sentences, against the slow reference: losses, teachers, backward passes."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.unit.criterions import reference as ref
from tests.unit.criterions import sentence_reference as sent
from tests.unit.criterions.test_sentence_methods import (
    EPSILON,
    ETA,
    LAMBDA,
    METHODS,
    TASKS,
    criterion_of,
    setting,
    task_gradient,
    worst_case,
)
from tests.unit.criterions.updates import assert_matches, noise_in_columns, run_update
from tests.unit.sentence_models import DIM, sentence_batch


@pytest.mark.parametrize("task", TASKS)
def test_scala_raises_the_loss_with_the_clean_passs_own_gradient(task):
    model, batch = setting(TASKS[task])
    update = run_update(criterion_of("scala", TASKS[task], scala_loss="ce", **METHODS["scala"][1]), model, [batch])
    start = {"src": 0.05 * noise_in_columns("normal", batch, ("src",), dim=DIM)["src"]}
    delta = ref.step(start, task_gradient(model, batch), batch, ETA, EPSILON)
    p, q = sent.output(model, batch, {}), sent.output(model, batch, delta)
    penalty = sent.kl(p.detach(), q)
    assert penalty > 1e-2
    assert_matches(update, model, sent.task_loss(p, batch) + LAMBDA * penalty)


@pytest.mark.parametrize("task", TASKS)
def test_bregman_term_against_the_momentum_teacher(task):
    model, batch = setting(TASKS[task])
    criterion = criterion_of("smart", TASKS[task], smart_bregman=0.4, smart_momentum=0.7, **METHODS["smart"][1])
    history = []
    for update_num in range(2):
        history.append(copy.deepcopy(model.state_dict()))
        update = run_update(criterion, model, [batch], update_num)
        if update_num == 0:
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), update.gradients):
                    parameter.sub_(0.02 * gradient)
    teacher = copy.deepcopy(model)
    for name, parameter in teacher.named_parameters():
        parameter.data = 0.7 * history[0][name] + 0.3 * history[1][name]
    delta = worst_case(model, batch, sent.symmetric, 3)
    p, q = sent.output(model, batch, {}), sent.output(model, batch, delta)
    proximal = sent.symmetric(p, sent.output(teacher, batch, {}).detach())
    assert proximal > 1e-3
    expected = sent.task_loss(p, batch) + LAMBDA * sent.symmetric(p, q) + 0.4 * proximal
    assert_matches(update, model, expected)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("option", "value"), [("adv_detach_clean", True), ("adv_objective", "perturbed")])
def test_nothing_flows_through_the_clean_output_on_demand(task, option, value):
    model, batch = setting(TASKS[task])
    update = run_update(criterion_of("smart", TASKS[task], **METHODS["smart"][1], **{option: value}), model, [batch])
    delta = worst_case(model, batch, sent.symmetric, 3)
    p, q = sent.output(model, batch, {}), sent.output(model, batch, delta)
    trained = q if value == "perturbed" else p
    assert_matches(update, model, sent.task_loss(trained, batch) + LAMBDA * sent.symmetric(p.detach(), q))


@pytest.mark.parametrize("task", TASKS)
def test_conadv_shifted_perturbs_with_a_gradient_that_is_one_update_old(task):
    """Batch t beside batch t − 1 at δ, g of the last update: the model has moved since."""
    model, first = setting(TASKS[task])
    second = sentence_batch((4, 2, 6), TASKS[task], seed=9, first_id=4)
    criterion = criterion_of("conadv", TASKS[task], conadv_mode="shifted", conadv_alpha=EPSILON)
    before = run_update(criterion, model, [first], 0)
    delta = ref.each_sentence(task_gradient(model, first), first, lambda words: ref.of_norm(words, EPSILON))
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), before.gradients):
            parameter.sub_(0.02 * gradient)
    update = run_update(criterion, model, [second], 1)
    clean = sent.task_loss(sent.output(model, second, {}), second)
    stale = sent.task_loss(sent.output(model, first, delta), first)
    assert_matches(update, model, 0.5 * (clean + stale))


@pytest.mark.parametrize("report", ["report_mcc", "report_acc_and_f1"])
def test_reports_cost_training_nothing(report):
    model, batch = setting(3, dropout=0.3)
    plain, reported = (
        run_update(criterion_of("r3f", 3, r3f_sigma=0.3, **options), model, [batch]) for options in ({}, {report: True})
    )
    assert torch.equal(plain.loss, reported.loss)
