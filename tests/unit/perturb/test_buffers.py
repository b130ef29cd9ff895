"""Buffers that each pass moves: extra passes start where the clean one did and leave them where it did."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from fairseq_adv.perturb.buffers import MovingBuffers

MOVING = {
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
    "spectral norm": lambda: nn.Sequential(spectral_norm(nn.Linear(4, 4))),
    "spectral norm, parametrised": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4))),
}
STILL = {
    "layer norm": lambda: nn.LayerNorm(4),
    "batch norm without statistics": lambda: nn.BatchNorm1d(4, track_running_stats=False),
    "weight norm": lambda: weight_norm(nn.Linear(4, 4)),
}


@pytest.mark.parametrize("kind", MOVING)
def test_a_pass_moves_them_and_they_can_be_put_back(kind):
    torch.manual_seed(0)
    model, x = MOVING[kind](), torch.randn(5, 4)
    buffers = MovingBuffers(model)
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert buffers and before
    values = buffers.capture()
    first = model(x)
    assert any(not torch.equal(value, before[name]) for name, value in model.named_buffers())
    with buffers.untouched():
        buffers.restore(values)
        again = model(x)
    after = {name: value.clone() for name, value in model.named_buffers()}
    assert torch.equal(first, again)
    buffers.restore(values)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model(x)
    assert all(torch.equal(value, after[name]) for name, value in model.named_buffers())
    (first.square().sum() + again.square().sum()).backward()  # graphs from before outlive it
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("kind", STILL)
def test_models_without_any(kind):
    assert not MovingBuffers(STILL[kind]())
