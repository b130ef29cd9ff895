"""The interval of a difference against sentences drawn by hand and scored anew."""

from __future__ import annotations

import numpy as np
import pytest

from fairseq_adv.scoring.intervals import RESAMPLING_SEED, difference_interval

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
