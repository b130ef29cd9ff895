"""``fairseq-adv neighbors`` from a test, and an exhaustive search that its lists are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
import pytest
from safetensors.numpy import load_file

from fairseq_adv.cli.main import main


def neighbors(*words: object) -> int:
    return main(["neighbors", *(str(word) for word in words)])


def unit_means(sentences: Sequence[Sequence[int]], weight: np.ndarray) -> np.ndarray:
    """Unit vectors along the mean embedding of each sentence, fp64, by a loop; zero for an empty sentence."""
    vectors = np.zeros((len(sentences), weight.shape[1]))
    for row, sentence in enumerate(sentences):
        if len(sentence):
            mean = sum(weight[word].astype(np.float64) for word in sentence) / len(sentence)
            vectors[row] = mean / np.sqrt((mean**2).sum())
    return vectors


def assert_nearest(path: Path, side: str, vectors: np.ndarray, k: int) -> None:
    """The file's lists of *side* have the k best cosines among the cached *vectors*, the query left out."""
    tensors = load_file(path)
    cosines = vectors @ vectors.T
    for query, (ids, found) in enumerate(zip(tensors[f"{side}.neighbor_ids"], tensors[f"{side}.cosine"])):
        others = [j for j in tensors["cache_ids"].tolist() if j != query]
        assert found == pytest.approx(np.sort(cosines[query][others])[::-1][:k], abs=2e-6)
        assert cosines[query][ids] == pytest.approx(found, abs=2e-6)
        assert query not in ids
        assert len(set(ids)) == k
