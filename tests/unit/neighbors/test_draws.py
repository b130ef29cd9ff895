"""The cache set and random neighbours: deterministic, uniform, and never more than was asked for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fairseq_adv.neighbors import RandomNeighbors, choose_cache_set, random_neighbors
from fairseq_adv.neighbors.counter_hash import hash_counters

WORD = 1 << 64


def splitmix64(state: int) -> int:
    """One output of SplitMix64 for a state, in plain integers."""
    z = state % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def test_hash_is_splitmix64_in_plain_integers():
    golden = 0x9E3779B97F4A7C15
    state = splitmix64(splitmix64(8 * golden) + 4 * golden)  # key (7, 3)
    expected = [splitmix64(counter * golden + state) for counter in (0, 1, 12345, 2**40)]
    assert hash_counters(np.array([0, 1, 12345, 2**40]), 7, 3).tolist() == expected


def test_splitmix64_reference_values():
    # first outputs of the published generator for seed 1234567
    golden = 0x9E3779B97F4A7C15
    outputs = [splitmix64(1234567 + k * golden) for k in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(("num_samples", "proportion"), [(1, 0.1), (7, 0.5), (160, 0.1), (1000, 0.333), (50, 1.0)])
def test_cache_set_is_a_sorted_set_of_the_asked_size(num_samples, proportion):
    ids = choose_cache_set(num_samples, proportion, seed=3)
    assert ids.dtype == np.int64
    assert len(ids) == max(1, round(Fraction(proportion) * num_samples))
    assert ids.tolist() == sorted(set(ids.tolist()))
    assert ids[0] >= 0
    assert ids[-1] < num_samples


def test_cache_set_is_pinned():
    """The set must be found again by later versions: a cache on disk belongs to it."""
    assert choose_cache_set(40, 0.2, seed=1).tolist() == [7, 15, 25, 29, 32, 35, 37, 39]


def test_cache_sets_differ_by_seed_and_grow_with_the_proportion():
    small, other, large = (choose_cache_set(1000, p, s) for p, s in ((0.1, 1), (0.1, 2), (0.4, 1)))
    assert set(small) != set(other)
    assert set(small) < set(large)


@pytest.mark.parametrize("proportion", [0.0, -0.1, 1.01, float("nan")])
def test_proportion_outside_its_range_is_refused(proportion):
    with pytest.raises(ValueError, match=r"in \(0, 1\], got"):
        choose_cache_set(10, proportion, seed=1)


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="of 0 in the data set none"):
        choose_cache_set(0, 0.1, seed=1)


def test_random_lists_hold_different_cached_ids_other_than_the_query():
    neighbors = random_neighbors(500, 0.1, num_neighbors=7, seed=4)
    ids = np.arange(500)
    for side in ("src", "tgt"):
        for query, row in zip(ids.tolist(), neighbors.lookup(ids, side).tolist()):
            assert len(set(row)) == 7
            assert query not in row
            assert set(row) <= set(neighbors.cache_ids.tolist())
    assert neighbors.is_cached(ids).sum() == 50
    assert neighbors.cache_ids.tolist() == choose_cache_set(500, 0.1, 4).tolist()


def test_random_lists_do_not_depend_on_the_batch_and_start_alike_for_every_k():
    neighbors = random_neighbors(300, 0.2, num_neighbors=4, seed=9)
    whole = neighbors.lookup(np.arange(300), "tgt")
    shuffled = np.random.default_rng(0).permutation(300)
    assert np.array_equal(neighbors.lookup(shuffled, "tgt"), whole[shuffled])
    assert np.array_equal(random_neighbors(300, 0.2, 1, seed=9).lookup(shuffled, "tgt"), whole[shuffled, :1])
    assert not np.array_equal(neighbors.lookup(shuffled, "src"), whole[shuffled])
    assert not np.array_equal(random_neighbors(300, 0.2, 4, seed=8).lookup(shuffled, "tgt"), whole[shuffled])


@pytest.mark.parametrize("column", [0, 2])
def test_random_lists_are_uniform(column):
    """Chi-square of one column over the 20 cached ids, for uncached queries; 99.9 % quantile at 19 degrees: 43.8."""
    cache_ids = np.arange(0, 20_000, 1000)
    neighbors = RandomNeighbors(20_000, cache_ids, 3, seed=2)
    drawn = neighbors.lookup(np.setdiff1d(np.arange(20_000), cache_ids), "src")[:, column]
    counts = np.bincount(np.searchsorted(cache_ids, drawn), minlength=20)
    expected = counts.sum() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


def test_a_cached_query_names_itself_last_when_there_is_no_other():
    neighbors = RandomNeighbors(10, np.array([2, 5, 7]), 3, seed=1)
    lists = neighbors.lookup(np.array([2, 5, 7, 0]), "src")
    assert lists[:3, 2].tolist() == [2, 5, 7]
    assert all(sorted(row) == [2, 5, 7] for row in lists.tolist())


def test_more_neighbors_than_cached_pairs_are_refused():
    with pytest.raises(ValueError, match="6 neighbors asked for, but only 5 pairs are cached"):
        random_neighbors(50, 0.1, num_neighbors=6, seed=1)


def test_bad_lookups_are_refused():
    neighbors = random_neighbors(50, 0.1, num_neighbors=1, seed=1)
    with pytest.raises(ValueError, match="sample id 50 is beyond the data set"):
        neighbors.lookup(np.array([3, 50]), "src")
    with pytest.raises(ValueError, match="sample id -1 is beyond"):
        neighbors.is_cached(np.array([-1]))
    with pytest.raises(ValueError, match="unknown side 'source'"):
        neighbors.lookup(np.array([3]), "source")
