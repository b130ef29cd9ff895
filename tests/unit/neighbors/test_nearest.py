"""The search against plain loops in fp64, for both searches, with repeated, permuted and empty sentences."""

from __future__ import annotations

import math
from typing import List

import numpy as np
import pytest
import torch

from fairseq_adv.neighbors import NearestNeighbors, search
from fairseq_adv.neighbors.sentence_vectors import sentence_vectors

VOCABULARY, DIM, NUM_SAMPLES = 40, 8, 150


def made_up_sentences() -> List[np.ndarray]:
    """Sentences of 0 to 6 words; some repeat an earlier one, some have its words in another order."""
    rng = np.random.default_rng(5)
    sentences = [rng.integers(0, VOCABULARY, rng.integers(0, 7)) for _ in range(NUM_SAMPLES)]
    for i in range(40, NUM_SAMPLES, 6):
        sentences[i] = sentences[i - 40].copy()
        sentences[i + 1] = sentences[i - 39][::-1].copy()
    return sentences


SENTENCES = made_up_sentences()
WEIGHT = torch.randn(VOCABULARY, DIM, generator=torch.Generator().manual_seed(1)) + 0.3
CACHE_IDS = np.arange(1, NUM_SAMPLES, 3)
BOTH = pytest.mark.parametrize("kind", ["faiss", "torch"])


def words(ids: np.ndarray) -> List[np.ndarray]:
    return [SENTENCES[i] for i in ids]


def found(kind: str = "torch", k: int = 4, cache_ids: np.ndarray = CACHE_IDS, batch_size: int = 64, words=words):
    if kind == "faiss":
        pytest.importorskip("faiss")
    nearest = NearestNeighbors(words, WEIGHT, cache_ids, k, search=kind, batch_size=batch_size)
    assert nearest.search_name == kind
    ids, cosine = zip(*nearest.lists(NUM_SAMPLES))
    return np.concatenate(ids), np.concatenate(cosine)


def mean_vector(sentence: np.ndarray) -> List[float]:
    """Mean of the word embeddings by loops over Python floats; zero for an empty sentence."""
    total = [0.0] * DIM
    for word in sentence.tolist():
        for d in range(DIM):
            total[d] += WEIGHT[word, d].item()
    return [value / max(1, len(sentence)) for value in total]


MEANS = [mean_vector(sentence) for sentence in SENTENCES]


def true_cosine(i: int, j: int) -> float:
    norms = [math.sqrt(sum(value * value for value in MEANS[n])) for n in (i, j)]
    if 0.0 in norms:
        return 0.0
    return sum(a * b for a, b in zip(MEANS[i], MEANS[j])) / (norms[0] * norms[1])


@BOTH
def test_lists_are_those_of_an_exhaustive_search(kind):
    ids, cosine = found(kind)
    assert any(len(s) == 0 for s in SENTENCES)
    for query in range(NUM_SAMPLES):
        best = sorted((true_cosine(query, j) for j in CACHE_IDS.tolist() if j != query), reverse=True)[:4]
        assert cosine[query] == pytest.approx(best, abs=2e-6)
        own_scores = [true_cosine(query, j) for j in ids[query]]
        assert own_scores == pytest.approx(cosine[query].tolist(), abs=2e-6)
        assert len(set(ids[query])) == 4
        assert set(ids[query]) <= set(CACHE_IDS) - {query}


@BOTH
def test_equal_cosines_are_ordered_by_id(kind):
    """Forty copies of one sentence, in the words' order and reversed: more than a search returns."""
    copies = [SENTENCES[3] if i % 2 else SENTENCES[3][::-1].copy() for i in range(40)]
    ids, cosine = found(kind, words=lambda wanted: [copies[i] if i < 40 else SENTENCES[i] for i in wanted])
    cached_copies = [i for i in CACHE_IDS if i < 40]
    for query in range(40):
        assert ids[query].tolist() == [i for i in cached_copies if i != query][:4]
        assert cosine[query] == pytest.approx([1.0] * 4, abs=1e-6)


@BOTH
@pytest.mark.parametrize("batch_size", [1, 7, NUM_SAMPLES, 10_000])
def test_the_batch_size_changes_nothing(kind, batch_size):
    ids, cosine = found(kind)
    again, cosine_again = found(kind, batch_size=batch_size)
    assert np.array_equal(ids, again)
    assert np.abs(cosine - cosine_again).max() < 1e-6


def test_both_searches_give_the_same_lists():
    (ids, cosine), (ids_of_faiss, cosine_of_faiss) = found("torch"), found("faiss")
    assert np.array_equal(ids, ids_of_faiss)
    assert np.abs(cosine - cosine_of_faiss).max() < 1e-6


def test_a_base_searched_in_parts_gives_the_same_lists(monkeypatch):
    whole = found("torch")[0]
    monkeypatch.setattr(search, "_SCORES_AT_A_TIME", {"cpu": 64 * 23})
    assert np.array_equal(found("torch")[0], whole)


def test_queries_are_read_batch_by_batch():
    """When the first lists are out, only the cached sentences and one batch of queries have been read."""
    asked: List[int] = []

    def counted(ids: np.ndarray) -> List[np.ndarray]:
        asked.extend(ids.tolist())
        return words(ids)

    blocks = NearestNeighbors(counted, WEIGHT, CACHE_IDS, 2, search="torch", batch_size=10).lists(NUM_SAMPLES)
    assert asked == CACHE_IDS.tolist()
    next(blocks)
    assert asked == [*CACHE_IDS.tolist(), *range(10)]


@BOTH
def test_a_sentence_of_no_known_word_takes_the_lowest_ids(kind):
    empty = next(i for i in range(NUM_SAMPLES) if len(SENTENCES[i]) == 0 and i not in CACHE_IDS)
    ids, cosine = found(kind)
    assert ids[empty].tolist() == CACHE_IDS[:4].tolist()
    assert cosine[empty].tolist() == [0.0] * 4


@BOTH
def test_a_cached_query_names_itself_last_when_there_is_no_other(kind):
    cache_ids = np.array([10, 20, 30])
    ids, _ = found(kind, k=3, cache_ids=cache_ids)
    assert ids[cache_ids, 2].tolist() == cache_ids.tolist()
    assert all(sorted(row) == cache_ids.tolist() for row in ids.tolist())


def test_vectors_have_unit_length_whatever_else_is_in_the_batch():
    vectors = sentence_vectors(SENTENCES, WEIGHT)
    for row, mean in zip(vectors.double(), MEANS):
        norm = math.sqrt(sum(value * value for value in mean))
        assert row.tolist() == pytest.approx([value / norm if norm else 0.0 for value in mean], abs=1e-6)
    alone = torch.cat([sentence_vectors([sentence], WEIGHT) for sentence in SENTENCES])
    assert torch.equal(alone, vectors)


def test_half_precision_embeddings_are_searched_in_fp32():
    nearest = NearestNeighbors(words, WEIGHT.half(), CACHE_IDS, 1, search="torch")
    assert nearest.base.vectors.dtype == torch.float32


def test_bad_input_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="51 neighbors asked for, but only 50"):
        found(k=51)
    with pytest.raises(ValueError, match="must be >= 1, got 0"):
        found(k=0)
    with pytest.raises(ValueError, match="batch size must be >= 1, got 0"):
        found(batch_size=0)
    with pytest.raises(ValueError, match="a word has index 40, but there are embeddings for 40"):
        found(words=lambda ids: [np.array([VOCABULARY])] * len(ids))
    with pytest.raises(ValueError, match="not finite"):
        NearestNeighbors(words, torch.full((VOCABULARY, DIM), float("nan")), CACHE_IDS, 1)
    with pytest.raises(ValueError, match="unknown search 'annoy'"):
        found(kind="annoy")


def test_without_faiss_torch_searches(monkeypatch):
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: None)
    assert NearestNeighbors(words, WEIGHT, CACHE_IDS, 1).search_name == "torch"
    with pytest.raises(ImportError, match=r"fairseq-adv\[knn\]"):
        NearestNeighbors(words, WEIGHT, CACHE_IDS, 1, search="faiss")
