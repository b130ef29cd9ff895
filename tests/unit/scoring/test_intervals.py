"""The interval of a difference against sentences drawn by hand and scored anew."""

from __future__ import annotations

import numpy as np
import pytest

from fairseq_adv.scoring.intervals import RESAMPLING_SEED, difference_interval, ratio_interval

sacrebleu = pytest.importorskip("sacrebleu")
WORDS = "the a small large house garden light door is was open closed now here there today".split()  # noqa: SIM905


def texts(noise: float, seed: int) -> list[str]:
    """Thirty sentences; a share *noise* of the words of the first is replaced."""
    plain, drawn = np.random.default_rng(0), np.random.default_rng(seed)
    lines = [plain.choice(WORDS, 9) for _ in range(30)]
    return [
        " ".join(str(drawn.choice(WORDS)) if drawn.random() < noise else str(word) for word in line) for line in lines
    ]


@pytest.mark.parametrize("name", ["BLEU", "CHRF"])
def test_it_is_the_interval_of_scores_of_drawn_sentences(name: str) -> None:
    references, one, other = texts(0, 1), texts(0.5, 2), texts(0.3, 3)
    metric = getattr(sacrebleu.metrics, name)()
    drawn = np.random.default_rng(RESAMPLING_SEED)
    differences = []
    for _ in range(40):
        rows = drawn.integers(0, 30, 30)
        scores = [
            metric.corpus_score([text[row] for row in rows], [[references[row] for row in rows]]).score
            for text in (one, other)
        ]
        differences.append(scores[1] - scores[0])
    expected = np.quantile(differences, [0.025, 0.975])
    assert difference_interval(metric, one, other, references, 40) == pytest.approx(tuple(expected), abs=1e-6)
    assert expected[0] > 0  # the second is better in nearly every sample


def test_a_system_does_not_differ_from_itself() -> None:
    text = texts(0.4, 2)
    assert difference_interval(sacrebleu.metrics.BLEU(), text, text, texts(0, 1), 20) == (0.0, 0.0)


def test_a_ratio_of_sums_over_sentences_drawn_by_hand() -> None:
    made = np.random.default_rng(5)
    counts, sums = made.integers(1, 9, 40), made.normal(1.0, 2.0, 40)
    drawn = np.random.default_rng(RESAMPLING_SEED)
    ratios = []
    for rows in drawn.integers(0, 40, (60, 40)):
        ratios.append(sum(sums[row] for row in rows) / sum(counts[row] for row in rows))
    low, high = ratio_interval(sums.tolist(), counts.tolist(), 60)
    assert (low, high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])))
    assert low < sums.sum() / counts.sum() < high
    assert ratio_interval([2.0, 4.0], [1.0, 2.0], 50) == pytest.approx((2.0, 2.0))  # the same in every sentence
