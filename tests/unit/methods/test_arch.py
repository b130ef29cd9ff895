"""ARCH's schedule and the reconstruction of uncached samples, against loops over Python floats."""

import math

import pytest
import torch

from fairseq_adv.methods.arch import is_refresh_epoch, perturbation_from_neighbors


def refresh_epochs(interval, epochs, first=1):
    last, result = None, []
    for epoch in range(first, epochs + 1):
        if is_refresh_epoch(epoch, last, interval):
            result.append(epoch)
            last = epoch
    return result


def test_schedule_of_the_paper():
    # t = 0, Tc, 2 Tc, … in the paper's epochs is 1, 1 + Tc, 1 + 2 Tc, … in fairseq's
    assert refresh_epochs(15, 50) == [t + 1 for t in range(50) if t % 15 == 0]
    assert refresh_epochs(1, 4) == [1, 2, 3, 4]
    assert refresh_epochs(math.inf, 50) == [1]
    assert refresh_epochs(5, 20, first=4) == [4, 9, 14, 19]  # a delayed start shifts the schedule


def test_epochs_counted_anew_refresh_again():
    assert is_refresh_epoch(1, last_refresh=16, interval=15)


@pytest.fixture
def neighbors():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(4, 3, 5, generator=generator)
    norms = torch.rand(4, 3, generator=generator)
    found = torch.tensor([[True, True, True], [True, False, True], [False, False, False], [False, True, False]])
    mask = torch.tensor([[k < n for k in range(6)] for n in (6, 3, 2, 1)])
    return means, norms, found, mask


@pytest.mark.parametrize("rescale", [False, True])
def test_every_word_gets_the_mean_of_the_neighbors_means(neighbors, rescale):
    means, norms, found, mask = neighbors
    result = perturbation_from_neighbors(means, norms, found, mask, rescale)
    for b in range(4):
        used = [j for j in range(3) if found[b, j]]
        length = int(mask[b].sum())
        row = [sum(means[b, j, d].item() for j in used) / max(len(used), 1) for d in range(5)]
        if rescale and used:
            wanted = sum(norms[b, j].item() for j in used) / len(used)
            own = math.sqrt(length * sum(x * x for x in row))
            row = [x * wanted / own for x in row]
        for k in range(6):
            assert result[b, k].tolist() == pytest.approx(row if k < length else [0.0] * 5, abs=1e-6)
