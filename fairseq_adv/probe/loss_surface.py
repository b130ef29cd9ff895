"""The loss along random directions that are scaled filter by filter (Li et al. 2018, "Visualizing the Loss Landscape").

Without the scaling a model with larger weights would look flatter: the function of a network with normalisation
hardly changes when its weights grow, but a step of a given length then changes it less.
"""

from __future__ import annotations

from typing import List, Sequence

import torch

from fairseq_adv.probe.averaged_loss import AveragedLoss, Direction


def filter_normalised_direction(loss: AveragedLoss, seed: int) -> Direction:
    """d ~ N(0, 1), each filter scaled to the norm of the model's own: d_i ← d_i ‖θ_i‖ / ‖d_i‖.

    A filter is what feeds one output: a row of a matrix, a word of an embedding. Biases and the weights of
    normalisation layers are not moved, as in the paper. Models of the same shapes get the same random numbers, by the
    parameter's name.
    """
    direction = []
    for index, parameter in enumerate(loss.parameters.values()):
        if parameter.dim() < 2:
            direction.append(torch.zeros_like(parameter, dtype=torch.float32))
            continue
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        rows = torch.randn(parameter.shape, generator=generator).flatten(1).to(parameter.device)
        own = parameter.detach().float().flatten(1).norm(dim=1, keepdim=True)
        direction.append((rows / rows.norm(dim=1, keepdim=True) * own).view(parameter.shape))
    return direction


def loss_along(loss: AveragedLoss, direction: Direction, distances: Sequence[float]) -> List[float]:
    """loss(θ + a·d) for each distance a, in nats."""
    values = []
    for distance in distances:
        with loss.moved(direction, distance):
            values.append(loss.value())
    return values


def loss_plane(loss: AveragedLoss, across: Direction, up: Direction, distances: Sequence[float]) -> List[List[float]]:
    """loss(θ + a·d₁ + b·d₂): a row for each b (*up*), a column for each a (*across*)."""
    rows = []
    for distance in distances:
        with loss.moved(up, distance):
            rows.append(loss_along(loss, across, distances))
    return rows


def even_distances(radius: float, points: int) -> List[float]:
    """*points* distances from −radius to radius, 0 in the middle; *points* must be odd."""
    if points % 2 == 0 or points < 3:
        raise ValueError(f"an odd number of points, at least 3, has 0 in its middle; got {points}")
    half = points // 2
    return [radius * step / half for step in range(-half, half + 1)]
