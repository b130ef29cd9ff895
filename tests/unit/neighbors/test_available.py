"""A neighbour that is not in the cache is replaced by the next of its list, for stored and for drawn lists."""

from __future__ import annotations

import numpy as np
import pytest

from fairseq_adv.neighbors import choose_cache_set, random_neighbors
from fairseq_adv.neighbors.lists import StoredNeighbors

NUM_SAMPLES = 60
CACHE_IDS = choose_cache_set(NUM_SAMPLES, 0.3, seed=4)


def stored(num_neighbors: int) -> StoredNeighbors:
    rng = np.random.default_rng(2)
    lists = {side: np.stack([rng.permutation(CACHE_IDS)[:5] for _ in range(NUM_SAMPLES)]) for side in ("src", "tgt")}
    return StoredNeighbors(NUM_SAMPLES, CACHE_IDS, num_neighbors, lists, {"src": "a", "tgt": "b"})


@pytest.mark.parametrize("make", [stored, lambda k: random_neighbors(NUM_SAMPLES, 0.3, k, seed=4)])
@pytest.mark.parametrize("num_neighbors", [1, 2])
def test_the_next_one_that_is_there_stands_in(make, num_neighbors):
    neighbors, there = make(num_neighbors), np.zeros(NUM_SAMPLES, dtype=bool)
    there[CACHE_IDS[::3]] = True  # most of the cache set is missing
    ids, moved = np.arange(NUM_SAMPLES), 0
    for side in ("src", "tgt"):
        got = neighbors.available(ids, side, there.__getitem__)
        for row, candidates in enumerate(neighbors.candidates(ids, side)):
            wanted = [c for c in candidates if there[c]][:num_neighbors]
            assert got.ids[row][got.found[row]].tolist() == wanted
            nearest = neighbors.lookup([row], side)[0]
            assert got.further[row] == (not all(there[n] for n in nearest))
            moved += bool(got.further[row] and wanted)
    assert moved > 10


def test_nothing_changes_where_all_neighbors_are_there():
    neighbors, ids = stored(2), np.arange(NUM_SAMPLES)
    got = neighbors.available(ids, "src", lambda some: np.ones(len(some), dtype=bool))
    assert np.array_equal(got.ids, neighbors.lookup(ids, "src")) and got.found.all() and not got.further.any()


def test_only_trained_pairs_are_chosen_for_the_cache():
    trained = np.arange(NUM_SAMPLES) % 3 > 0
    chosen = choose_cache_set(NUM_SAMPLES, 0.5, 4, trained)
    assert len(chosen) == 20 and trained[chosen].all()
    everything = np.ones(NUM_SAMPLES, dtype=bool)
    assert np.array_equal(choose_cache_set(NUM_SAMPLES, 0.3, 4, everything), CACHE_IDS)
    neighbors = stored(1)
    neighbors.restrict(trained)
    assert set(neighbors.cache_ids) == {i for i in CACHE_IDS if trained[i]}
    with pytest.raises(ValueError, match="no pair of the cache set is trained"):
        neighbors.restrict(np.zeros(NUM_SAMPLES, dtype=bool))
