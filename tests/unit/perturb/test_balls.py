"""Norms, directions and projections against loops and against the definition of a projection."""

from __future__ import annotations

import math
from typing import Dict, List

import pytest
import torch

from fairseq_adv.perturb.balls import Ball

LENGTHS = (3, 1, 4, 0)
KINDS = [(norm, level) for norm in ("l2", "linf") for level in ("sentence", "word")]


@pytest.fixture
def delta():
    return torch.randn(4, 4, 5, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def mask():
    return torch.tensor([[k < n for k in range(4)] for n in LENGTHS])


def groups(values, level):
    """The real coordinates of each ball, as lists of Python floats keyed by (sentence,) or (sentence, word)."""
    result: Dict[tuple, List[float]] = {}
    for b, length in enumerate(LENGTHS):
        for k in range(length):
            key = (b,) if level == "sentence" else (b, k)
            result.setdefault(key, []).extend(values[b, k].tolist())
    return result


def slow_norm(coordinates, norm):
    return max(map(abs, coordinates)) if norm == "linf" else math.sqrt(sum(x * x for x in coordinates))


@pytest.mark.parametrize(("norm", "level"), KINDS)
def test_norms_run_over_real_tokens_only(delta, mask, norm, level):
    norms = Ball(1.0, norm, level).norms(delta, mask)
    for key, coordinates in groups(delta, level).items():
        assert norms[key].item() == pytest.approx(slow_norm(coordinates, norm), rel=1e-6)


@pytest.mark.parametrize(("norm", "level"), KINDS)
def test_direction_has_unit_norm_and_the_gradient_sign(delta, mask, norm, level):
    direction = Ball(1.0, norm, level).direction(delta, mask)
    before = groups(delta, level)
    for key, coordinates in groups(direction, level).items():
        assert slow_norm(coordinates, norm) == pytest.approx(1.0, rel=1e-6)
        scale = slow_norm(before[key], norm)
        assert coordinates == pytest.approx([x / scale for x in before[key]], rel=1e-5)
    assert direction.masked_select(~mask.unsqueeze(-1)).abs().sum() == 0


@pytest.mark.parametrize(("norm", "level"), KINDS)
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 100.0])
def test_projection_is_inside_and_nothing_inside_is_nearer(delta, mask, norm, level, epsilon):
    ball = Ball(epsilon, norm, level)
    projected = ball.project(delta, mask)
    before, after = groups(delta, level), groups(projected, level)
    generator = torch.Generator().manual_seed(5)
    for key, coordinates in after.items():
        assert slow_norm(coordinates, norm) <= epsilon * (1 + 1e-6)
        distance = math.dist(before[key], coordinates)
        for _ in range(50):
            other = torch.randn(len(coordinates), generator=generator).tolist()
            shrink = epsilon * torch.rand(1, generator=generator).item() / slow_norm(other, norm)
            assert distance <= math.dist(before[key], [x * shrink for x in other]) + 1e-6
        if slow_norm(before[key], norm) <= epsilon:
            assert coordinates == before[key]  # inside: untouched, bit for bit
    assert projected.masked_select(~mask.unsqueeze(-1)).abs().sum() == 0


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1.0, 1e30])
def test_direction_of_tiny_and_huge_gradients(mask, size):
    gradient = torch.full((4, 4, 5), size)
    direction = Ball(1.0).direction(gradient, mask)
    assert torch.isfinite(direction).all()
    for b, length in enumerate(LENGTHS[:3]):
        assert direction[b, :length].norm().item() == pytest.approx(1.0, rel=1e-5)


def test_zero_gradient_gives_zero_direction(mask):
    assert Ball(1.0).direction(torch.zeros(4, 4, 5), mask).abs().sum() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(epsilon=-1), "epsilon"),
        (dict(epsilon=float("nan")), "epsilon"),
        (dict(epsilon=1, norm="l1"), "l1"),
        (dict(epsilon=1, level="x"), "'x'"),
    ],
)
def test_wrong_settings_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Ball(**arguments)
