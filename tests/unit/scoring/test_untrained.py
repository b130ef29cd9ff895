"""Baselines on text that gives its label away, or does not."""

from __future__ import annotations

import itertools
import math

import pytest

from fairseq_adv.corpora.sentences.labelled import Example
from fairseq_adv.scoring.untrained import LabelledSet, baselines

pytest.importorskip("sklearn")

FILMS = [f"film{n}" for n in range(30)]


def classes(rows) -> LabelledSet:
    subsets = {"train": rows[:60], "valid": rows[60:80], "test": rows[80:]}
    return LabelledSet(subsets, ("bad", "good"), ("accuracy", "f1"))


def test_words_of_a_class_are_found_and_the_frequent_class_is_not_more_than_it_is() -> None:
    rows = [Example(f"{film} was {'fine' if n % 3 else 'dull'}", None, "good" if n % 3 else "bad")
            for n, film in enumerate(FILMS * 4)]  # fmt: skip
    found = baselines(classes(rows), ["test"])
    share = sum(e.label == "good" for e in rows[80:]) / len(rows[80:])
    assert found["majority"]["test"]["accuracy"] == pytest.approx(share)
    assert found["tf-idf"]["test"] == {"accuracy": 1.0, "f1": 1.0}


def test_what_a_pair_shares_tells_its_number_and_the_mean_tells_nothing() -> None:
    pairs = [Example(f"the {a} of the {b}", f"{a if same else 'house'} and {b}", "4" if same else "1")
             for a, b, same in itertools.product(FILMS[:8], FILMS[8:16], (True, False))]  # fmt: skip
    data = LabelledSet({"train": pairs[:80], "valid": pairs[80:100], "test": pairs[100:]}, (), ("pearson", "spearman"))
    given = []

    def cosines(firsts, seconds):
        given.append((firsts, seconds))
        return [float(first.split()[1] in second) for first, second in zip(firsts, seconds)]

    found = baselines(data, ["test"], cosines)
    assert found["tf-idf"]["test"]["pearson"] > 0.95
    assert math.isnan(found["mean"]["test"]["pearson"])
    assert found["untuned cosine"]["test"] == pytest.approx({"pearson": 1, "spearman": 1})
    assert given == [([e.first for e in pairs[100:]], [e.second for e in pairs[100:]])]
    assert set(baselines(data, ["test"])) == {"mean", "tf-idf"}


def test_numbers_of_single_sentences_have_no_cosine() -> None:
    rows = [Example(f"{film} {'good ' * (n % 4)}", None, str(n % 4)) for n, film in enumerate(FILMS * 4)]
    data = LabelledSet({"train": rows[:60], "valid": rows[60:80], "test": rows[80:]}, (), ("pearson",))
    found = baselines(data, ["valid", "test"], lambda *_: pytest.fail("asked for"))
    assert set(found) == {"mean", "tf-idf"} and found["tf-idf"]["test"]["pearson"] > 0.9
