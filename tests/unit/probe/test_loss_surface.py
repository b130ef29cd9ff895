"""Filter-normalised directions and the losses along them."""

from __future__ import annotations

import pytest
import torch

from fairseq_adv.probe.averaged_loss import AveragedLoss
from fairseq_adv.probe.loss_surface import even_distances, filter_normalised_direction, loss_along, loss_plane


def network(scale: float = 1.0) -> AveragedLoss:
    """½‖W‖² + Σb over a matrix of 3 filters and a bias; *scale* blows the filters up."""
    generator = torch.Generator().manual_seed(1)
    weight = (scale * torch.randn(3, 5, generator=generator)).requires_grad_()
    bias = torch.zeros(3).requires_grad_()
    return AveragedLoss({"w": weight, "b": bias}, [lambda: 0.5 * weight.square().sum() + bias.sum()], 1.0)


def test_each_filter_has_the_models_norm_and_biases_stay() -> None:
    loss = network()
    weight, bias = filter_normalised_direction(loss, seed=7)
    torch.testing.assert_close(weight.norm(dim=1), loss.parameters["w"].detach().norm(dim=1))
    assert torch.equal(bias, torch.zeros(3))


def test_models_of_one_shape_get_one_direction_scaled_by_their_own_filters() -> None:
    small, large = (filter_normalised_direction(network(scale), seed=7)[0] for scale in (1.0, 10.0))
    torch.testing.assert_close(10 * small, large)
    assert not torch.allclose(small, filter_normalised_direction(network(), seed=8)[0])


def test_losses_on_the_line_and_the_plane() -> None:
    loss = network()
    across, up = (filter_normalised_direction(loss, seed) for seed in (1, 2))
    distances = even_distances(1.0, 5)
    assert distances == [-1.0, -0.5, 0.0, 0.5, 1.0]
    weight = loss.parameters["w"].detach()
    line = loss_along(loss, across, distances)
    assert line == pytest.approx([float(0.5 * (weight + a * across[0]).square().sum()) for a in distances], rel=1e-5)
    plane = loss_plane(loss, across, up, distances)
    assert plane[2] == pytest.approx(line, rel=1e-5)  # b = 0
    corner = float(0.5 * (weight + 1.0 * across[0] - 0.5 * up[0]).square().sum())
    assert plane[1][4] == pytest.approx(corner, rel=1e-5)


@pytest.mark.parametrize("points", [1, 4])
def test_zero_must_be_among_the_distances(points: int) -> None:
    with pytest.raises(ValueError, match="odd number"):
        even_distances(1.0, points)
