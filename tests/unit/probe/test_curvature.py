"""Hessian-vector products, eigenvalues and SAM's rise against models whose Hessian is known."""

from __future__ import annotations

from functools import partial
from typing import Any, Dict, List

import pytest
import torch
from torch import Tensor

from fairseq_adv.probe.averaged_loss import AveragedLoss, dot
from fairseq_adv.probe.curvature import largest_eigenvalue, sam_rise
from tests.unit.toy_models import toy_batch, toy_model

A, B = torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.nn.Parameter(torch.tensor([[0.5], [3.0]]))


def quadratic(matrix: Tensor, slope: Tensor, batches: int = 3) -> AveragedLoss:
    """½θᵀHθ + sᵀθ over θ = (a, b), cut into as many terms of unequal weight."""
    parameters = {"a": A.detach().clone().requires_grad_(), "b": B.detach().clone().requires_grad_()}
    shares = torch.arange(1.0, batches + 1)

    def term(share: float) -> Tensor:
        theta = torch.cat([p.flatten() for p in parameters.values()])
        return share * (0.5 * theta @ matrix @ theta + slope @ theta)

    return AveragedLoss(parameters, [partial(term, float(s)) for s in shares], float(shares.sum()))


def symmetric(eigenvalues: List[float], seed: int = 0) -> Tensor:
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)))[0]
    return basis @ torch.diag(torch.tensor(eigenvalues)) @ basis.T


def test_gradient_and_hessian_of_a_quadratic() -> None:
    matrix, slope = symmetric([4.0, 1.0, 0.5, -2.0]), torch.tensor([1.0, 0.0, -1.0, 2.0])
    loss = quadratic(matrix, slope)
    theta = torch.cat([A.flatten(), B.flatten()]).detach()
    assert loss.value() == pytest.approx(float(0.5 * theta @ matrix @ theta + slope @ theta), rel=1e-5)
    flat = torch.cat([part.flatten() for part in loss.gradient()])
    torch.testing.assert_close(flat, matrix @ theta + slope)
    direction = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]])]
    image = torch.cat([part.flatten() for part in loss.hessian_times(direction)])
    torch.testing.assert_close(image, matrix @ torch.tensor([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize(
    ("eigenvalues", "largest"),
    [
        ([4.0, 1.0, 0.5, 0.1], 4.0),
        ([1.0, 0.5, 0.2, -5.0], 1.0),  # the absolutely largest one is negative
        ([-1.0, -2.0, -3.0, -4.0], -1.0),
        ([3.0, 3.0, 1.0, 0.0], 3.0),  # twice
    ],
)
def test_largest_eigenvalue(eigenvalues: List[float], largest: float) -> None:
    found = largest_eigenvalue(quadratic(symmetric(eigenvalues), torch.zeros(4)), iterations=300, tolerance=1e-4)
    assert found.value == pytest.approx(largest, abs=2e-3)
    assert found.residual < 1e-2


def test_eigenvalue_of_a_flat_loss_is_zero() -> None:
    assert largest_eigenvalue(quadratic(torch.zeros(4, 4), torch.ones(4))).value == 0.0


def test_too_few_iterations_show_in_the_residual() -> None:
    found = largest_eigenvalue(quadratic(symmetric([4.0, 3.9, 3.8, 3.7]), torch.zeros(4)), iterations=2)
    assert found.iterations == 2
    assert abs(found.value - 4.0) <= found.residual + 0.3 and found.residual > 1e-3


def test_sam_rise_of_a_linear_loss_is_radius_times_slope() -> None:
    slope = torch.tensor([3.0, 0.0, 0.0, 4.0])
    assert sam_rise(quadratic(torch.zeros(4, 4), slope), radius=0.2) == pytest.approx(0.2 * 5, rel=1e-4)


def test_sam_rise_of_a_quadratic() -> None:
    """Brute force: the best of many points on the sphere; one step is close, more steps are closer."""
    matrix, slope = symmetric([4.0, 1.0, 0.5, 0.1]), torch.tensor([0.3, 0.0, -0.1, 0.2])
    loss, radius = quadratic(matrix, slope), 0.5
    theta = torch.cat([p.detach().flatten() for p in loss.parameters.values()])
    points = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(1))
    moved = theta + radius * points / points.norm(dim=1, keepdim=True)
    values = 0.5 * (moved @ matrix * moved).sum(1) + moved @ slope
    highest = float(values.max()) - loss.value()
    one, many = sam_rise(loss, radius), sam_rise(loss, radius, steps=20)
    assert one <= many + 1e-6 <= highest * 1.001
    assert many == pytest.approx(highest, rel=2e-3)


def test_parameters_come_back_bit_for_bit() -> None:
    loss = quadratic(symmetric([1.0, 2.0, 3.0, 4.0]), torch.ones(4))
    before = {name: p.detach().clone() for name, p in loss.parameters.items()}
    with pytest.raises(RuntimeError), loss.moved([torch.ones(2), torch.ones(2, 1)], 1e7):
        raise RuntimeError("inside")
    assert all(torch.equal(before[name], p) for name, p in loss.parameters.items())


def transformer_loss(name: str) -> AveragedLoss:
    model = toy_model(name).eval().double()
    batches: List[Dict[str, Any]] = [toy_batch(seed=1), toy_batch(seed=2)]

    def term(sample: Dict[str, Any]) -> Tensor:
        log_probs = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True)
        target = sample["target"]
        return -log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)[target.ne(1)].sum()

    weight = float(sum(b["target"].ne(1).sum() for b in batches))
    return AveragedLoss(dict(model.named_parameters()), [partial(term, b) for b in batches], weight)


@pytest.mark.parametrize("name", ["transformer_shared", "lstm", "lightconv"])
def test_hessian_of_real_models_against_finite_differences(name: str) -> None:
    loss = transformer_loss(name)
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator) for p in loss.parameters.values()]
    exact = loss.hessian_times(direction)
    step = 1e-5  # small: a ReLU has kinks
    with loss.moved(direction, step):
        ahead = loss.gradient()
    with loss.moved(direction, -step):
        behind = loss.gradient()
    numeric = [(a - b) / (2 * step) for a, b in zip(ahead, behind)]
    difference = [e - n for e, n in zip(exact, numeric)]
    assert dot(difference, difference) ** 0.5 < 1e-3 * dot(numeric, numeric) ** 0.5
    assert dot(numeric, numeric) > 0
