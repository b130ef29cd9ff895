"""SMART's momentum teacher: when it moves, what it answers, and that it leaves the model alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fairseq_adv.methods.smart import MomentumTeacher


def line(weight):
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(weight)
    return model


def test_moves_once_for_each_update():
    model, teacher = line(1.0), MomentumTeacher(0.75)
    seen = []
    for update_num, weight in ((0, 1.0), (1, 2.0), (1, 2.0), (2, 4.0)):  # update 1 has two micro-batches
        model.weight.data.fill_(weight)
        teacher.follow(model, update_num)
        seen.append(teacher.parameters["weight"].item())
    assert seen == pytest.approx([1.0, 1.25, 1.25, 1.9375])


def test_answers_with_its_own_parameters_in_evaluation_mode():
    first = line(1.0)
    model = nn.Sequential(first, nn.Dropout(0.5))
    model[1].training = False  # a module that somebody had frozen
    teacher = MomentumTeacher(0.5)
    teacher.follow(model, 0)
    first.weight.data.fill_(3.0)
    own = first.weight.data_ptr()
    modes = []

    def run():
        modes.append([module.training for module in model.modules()])
        return model(torch.ones(1, 1))

    output: Any = teacher.output(model, run)
    assert output.item() == 1.0 and not output.requires_grad and not any(modes[0])
    assert first.weight.data_ptr() == own and first.weight.item() == 3.0
    assert [module.training for module in model.modules()] == [True, True, False]


def test_model_is_given_back_after_an_error():
    model, teacher = line(1.0), MomentumTeacher(0.5)
    teacher.follow(model, 0)
    model.weight.data.fill_(3.0)

    def fail():
        raise RuntimeError("inside the model")

    with pytest.raises(RuntimeError, match="inside the model"):
        teacher.output(model, fail)
    assert model.weight.item() == 3.0 and model.training


def test_keeps_small_steps_of_a_half_precision_model():
    model, teacher = line(1.0).half(), MomentumTeacher(0.99)
    teacher.follow(model, 0)
    model.weight.data.fill_(1.01)
    for update_num in range(1, 101):
        teacher.follow(model, update_num)
    expected = 1.01 - 0.01 * 0.99**100
    assert teacher.parameters["weight"].item() == pytest.approx(expected, abs=3e-4)


def test_answers_with_its_own_parameters_inside_autocast():
    """Autocast keeps half-precision copies of the weights that it has seen: here, of the model's own."""
    model, teacher = line(1.0), MomentumTeacher(0.5)
    teacher.follow(model, 0)
    model.weight.data.fill_(3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = model(torch.ones(1, 1))
        output: Any = teacher.output(model, lambda: model(torch.ones(1, 1)))
        again = model(torch.ones(1, 1))
    assert output.item() == 1.0 and own.item() == again.item() == 3.0
    again.backward()
    assert model.weight.grad is not None
