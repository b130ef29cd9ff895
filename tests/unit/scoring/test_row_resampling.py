"""The bootstrap over rows and the test over seeds, against a slow loop and the textbook."""

from __future__ import annotations

import math
import random

import pytest

from fairseq_adv.scoring.intervals import RESAMPLING_SEED
from fairseq_adv.scoring.row_resampling import row_difference, seed_p_value

pytest.importorskip("sklearn")


def trainings(rate: float, targets, seeds: int, seed: int):
    drawn = random.Random(seed)
    return [[t if drawn.random() < rate else 1 - t for t in targets] for _ in range(seeds)]


TARGETS = [random.Random(0).randint(0, 1) for _ in range(200)]


def test_the_interval_is_that_of_resampled_rows() -> None:
    import numpy as np

    before, after = trainings(0.6, TARGETS, 3, 1), trainings(0.75, TARGETS, 3, 2)
    found = row_difference("accuracy", before, after, TARGETS, samples=200)

    def accuracy(predicted, rows):
        return sum(predicted[row] == TARGETS[row] for row in rows) / len(rows)

    drawn, differences = np.random.default_rng(RESAMPLING_SEED), []
    for _ in range(200):
        rows = drawn.choice(np.arange(len(TARGETS)), len(TARGETS)).tolist()
        differences.append(sum(accuracy(b, rows) - accuracy(a, rows) for a, b in zip(before, after)) / 3)
    differences.sort()
    assert found.low == pytest.approx(np.quantile(differences, 0.025)) and found.low > 0
    assert found.high == pytest.approx(np.quantile(differences, 0.975))
    every = range(len(TARGETS))
    assert found.value == pytest.approx(sum(accuracy(b, every) - accuracy(a, every) for a, b in zip(before, after)) / 3)
    assert found.p == 0


def test_equal_systems_do_not_differ() -> None:
    one = trainings(0.6, TARGETS, 2, 1)
    found = row_difference("accuracy", one, one, TARGETS, samples=20)
    assert found == (0, 0, 0, 1)
    assert math.isnan(seed_p_value([0.5, 0.6], [0.5, 0.6])) and math.isnan(seed_p_value([0.5], [0.6]))


def test_what_has_no_score_differs_by_no_number() -> None:
    pytest.importorskip("scipy")
    numbers = [0.1 * row for row in range(20)]
    constant = [[1.0] * 20]  # its correlation is not defined
    assert all(map(math.isnan, row_difference("pearson", [numbers], constant, numbers, samples=10)))


def test_seeds_are_paired() -> None:
    before, after = [0.70, 0.80, 0.75], [0.72, 0.81, 0.78]
    differences = [b - a for a, b in zip(before, after)]
    mean = sum(differences) / 3
    t = mean / math.sqrt(sum((d - mean) ** 2 for d in differences) / 2 / 3)
    # with two degrees of freedom the t distribution has a closed form
    assert seed_p_value(before, after) == pytest.approx(1 - t / math.sqrt(2 + t**2))
