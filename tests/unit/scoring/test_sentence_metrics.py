"""Metrics against their definitions, counted by hand."""

from __future__ import annotations

import math
import random

import pytest

from fairseq_adv.scoring.sentence_metrics import METRICS, sentence_scores

pytest.importorskip("sklearn")


def by_definition(predicted, targets):
    pairs = list(zip(predicted, targets))
    tp, tn, fp, fn = (sum(pair == counted for pair in pairs) for counted in ((1, 1), (0, 0), (1, 0), (0, 1)))
    margins = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": (tp + tn) / len(pairs),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "matthews": (tp * tn - fp * fn) / margins,
    }


def pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    return covariance / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def ranks(values):
    """1 for the smallest; equal values share the mean of their ranks."""
    return [sum(v < w for v in values) + (1 + sum(v == w for v in values)) / 2 for w in values]


def test_metrics_of_classes() -> None:
    drawn = random.Random(1)
    targets = [drawn.randint(0, 1) for _ in range(50)]
    predicted = [target if drawn.random() < 0.7 else 1 - target for target in targets]
    expected = by_definition(predicted, targets)
    assert sentence_scores(list(expected), predicted, targets) == pytest.approx(expected)


def test_metrics_of_numbers_with_ties() -> None:
    drawn = random.Random(2)
    targets = [drawn.randint(0, 5) / 2 for _ in range(40)]
    predicted = [round(target + drawn.gauss(0, 1), 1) for target in targets]
    expected = {"pearson": pearson(predicted, targets), "spearman": pearson(ranks(predicted), ranks(targets))}
    assert sentence_scores(list(expected), predicted, targets) == pytest.approx(expected)


def test_a_constant_has_no_correlation_and_rows_must_match() -> None:
    assert all(math.isnan(value) for value in sentence_scores(METRICS[3:], [2.0, 2.0], [1.0, 3.0]).values())
    with pytest.raises(ValueError, match="2 predictions for 3 rows"):
        sentence_scores(["accuracy"], [1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match="unknown metric 'bleu': one of accuracy"):
        sentence_scores(["bleu"], [1], [1])
