"""Batches of a probed subset and the subwords of its source."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import pytest
import torch

from fairseq_adv.probe.sentences import SentenceSet, Subwords, subword_model
from tests.unit.toy_models import dictionary


def pairs(*lengths: int) -> SentenceSet:
    examples = [{"id": i, "source": torch.full((n,), 5), "target": torch.full((2,), 6)} for i, n in enumerate(lengths)]
    return SentenceSet(SimpleNamespace(collater=lambda rows: [row["id"] for row in rows]), examples)


def test_batches_hold_every_pair_once_and_keep_to_the_limit() -> None:
    sentences = pairs(3, 9, 4, 9, 2, 7)
    batches: List[Any] = list(sentences.batches(max_tokens=18))
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    lengths = [3, 9, 4, 9, 2, 7]
    assert all(len(batch) * max(lengths[i] for i in batch) <= 18 for batch in batches) and len(batches) == 3


def test_a_pair_longer_than_the_limit_is_a_batch_of_its_own() -> None:
    assert list(pairs(3, 30).batches(max_tokens=10)) == [[0], [1]]


def test_a_sample_is_drawn_by_its_seed() -> None:
    sentences = pairs(*range(1, 50))
    one, again, other = sentences.sample(10, 1), sentences.sample(10, 1), sentences.sample(10, 2)
    ids = [[e["id"] for e in s.examples] for s in (one, again, other)]
    assert ids[0] == ids[1] != ids[2] and len(set(ids[0])) == 10
    assert sentences.sample(100, 1) is sentences


def test_sources_are_replaced_and_the_rest_stays() -> None:
    sentences = pairs(3, 4)
    moved = sentences.with_sources([torch.tensor([7]), torch.tensor([8, 8])])
    assert [e["source"].tolist() for e in moved.examples] == [[7], [8, 8]]
    assert moved.examples[1]["target"] is sentences.examples[1]["target"] and len(sentences.examples[0]["source"]) == 3


def test_text_and_tokens_of_words() -> None:
    words = Subwords(dictionary(), None, str)
    tokens = torch.tensor([5, 9, 2])
    assert words.text(tokens) == "w1 w5" and torch.equal(words.tokens("w1 w5"), tokens)
    assert words.is_known(tokens) and not words.is_known(words.tokens("w1 nothing"))


def test_a_subword_model_of_other_data_is_refused() -> None:
    sentences = SentenceSet(None, [{"source": torch.tensor([5, 6, 2])}] * 10)
    Subwords(dictionary(), None, str).check(sentences, Path("a.model"))
    backwards = Subwords(dictionary(), None, lambda text: " ".join(reversed(text.split())))
    with pytest.raises(ValueError, match=r"--subwords a\.model cuts 10 of 10 sentences"):
        backwards.check(sentences, Path("a.model"))


def test_the_model_is_found_beside_the_data(tmp_path: Path) -> None:
    data = tmp_path / "bin"
    with pytest.raises(FileNotFoundError, match="--subwords"):
        subword_model(data, None)
    (tmp_path / "bpe").mkdir()
    (tmp_path / "bpe/codes").write_text("x")
    assert subword_model(data, None) == tmp_path / "bpe/codes"
    with pytest.raises(FileNotFoundError, match=r"nowhere\.model"):
        subword_model(data, tmp_path / "nowhere.model")
