"""What is served, bit for bit against the dense tensors that a loop over records fills."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fairseq_adv.data.cached_perturbations import CachedPerturbations
from fairseq_adv.data.known_batch import KnownBatch
from fairseq_adv.neighbors import random_neighbors
from tests.unit.cache.caches import DIM, delta, open_for_writing, put, reader_of

NUM_SAMPLES, SIDES, CPU = 100, ("src", "tgt"), torch.device("cpu")


def filled(tmp_path, dtype, num_neighbors, leave_out=()):
    """A cache of 30 of 100 pairs in several shards, without those of *leave_out*."""
    neighbors = random_neighbors(NUM_SAMPLES, 0.3, num_neighbors, seed=3)
    cache = open_for_writing(tmp_path, dtype, shard_bytes=2000)
    cache.begin_refresh(1)
    for i in neighbors.cache_ids.tolist():
        if i not in leave_out:
            put(cache, [i], 1)
    cache.commit()
    return cache, neighbors


def known_batch(ids):
    lengths = {side: np.array([len(delta(i, 1, side)) for i in ids]) for side in SIDES}
    return KnownBatch(np.array(ids), lengths, {"src": 5, "tgt": 7})


def dense(reader, neighbors, batch, side):
    """Values ``B x L x D``, means ``B x K x D``, norms and found ``B x K``, record by record."""
    count, columns, k = len(batch.ids), batch.columns[side], neighbors.num_neighbors
    values, means = torch.zeros(count, columns, DIM), torch.zeros(count, k, DIM)
    norms, found = torch.zeros(count, k), torch.zeros(count, k, dtype=torch.bool)
    held = set(reader.ids.tolist())
    for row, sample in enumerate(batch.ids.tolist()):
        if sample in held:
            stored = reader.read([sample], side)[0]
            values[row, : len(stored)] = stored
            continue
        there = [j for j in neighbors.candidates([sample], side)[0].tolist() if j in held][:k]
        for place, j in enumerate(there):
            mean, norm = reader.read_means([j], side)
            means[row, place], norms[row, place], found[row, place] = mean[0], norm[0], True
    return values, means, norms, found


@pytest.mark.parametrize("limit", [0, None], ids=["from-disk", "on-device"])
@pytest.mark.parametrize("dtype", ["fp16", "int8", "fp32"])
@pytest.mark.parametrize("num_neighbors", [1, 3])
def test_equal_to_dense_tensors_bit_for_bit(tmp_path, dtype, num_neighbors, limit):
    cache, neighbors = filled(tmp_path, dtype, num_neighbors, leave_out=(4, 9, 13))
    perturbations = CachedPerturbations(cache, neighbors, np.ones(NUM_SAMPLES, dtype=bool), CPU, limit)
    held = set(reader_of(cache).ids.tolist())
    for ids in (list(range(40)), [int(neighbors.cache_ids[5])], [i for i in range(60) if i not in held]):
        batch = known_batch(ids)
        perturbations.foresee(batch)
        served = perturbations.serve(batch)
        assert served.cached == len(held & set(ids))
        for side in SIDES:
            values, means, norms, found = dense(cache.reader, neighbors, batch, side)
            got = served.sides[side]
            assert torch.equal(got.found, found) and got.exact.tolist() == [i in held for i in ids]
            assert torch.equal(got.values, values)
            weight = found.unsqueeze(-1)  # what is not found has no weight, whatever lies there
            assert torch.equal(got.means * weight, means) and torch.equal(got.norms * found, norms)


def test_a_sentence_of_another_length_is_refused_with_its_id(tmp_path):
    cache, neighbors = filled(tmp_path, "fp16", 1)
    perturbations = CachedPerturbations(cache, neighbors, np.ones(NUM_SAMPLES, dtype=bool), CPU)
    sample = int(neighbors.cache_ids[2])
    batch = known_batch([sample])
    batch.lengths["tgt"] = batch.lengths["tgt"] + 1
    perturbations.foresee(batch)
    with pytest.raises(ValueError, match=rf"tgt tokens for sample {sample}, the batch has .*augmentation"):
        perturbations.serve(batch)


def test_what_was_read_of_an_older_generation_is_read_again(tmp_path):
    cache, neighbors = filled(tmp_path, "fp32", 1)
    perturbations = CachedPerturbations(cache, neighbors, np.ones(NUM_SAMPLES, dtype=bool), CPU)
    batch = known_batch(neighbors.cache_ids[:4].tolist())
    perturbations.foresee(batch)
    batch.reading.result()
    cache.begin_refresh(2)
    put(cache, neighbors.cache_ids.tolist(), 2)
    cache.commit()
    got = perturbations.serve(batch).sides["src"].values
    for row, sample in enumerate(batch.ids.tolist()):
        expected = reader_of(cache).read([sample], "src")[0]
        assert torch.equal(got[row, : len(expected)], expected)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_only_rows_of_the_cache_set_are_stored_and_broken_ones_left_out(tmp_path, factor):
    neighbors = random_neighbors(NUM_SAMPLES, 0.3, 1, seed=3)
    cache = open_for_writing(tmp_path)
    perturbations = CachedPerturbations(cache, neighbors, np.ones(NUM_SAMPLES, dtype=bool), CPU)
    cache.begin_refresh(1)
    ids = list(range(50))
    batch, values = known_batch(ids), {}
    for side in SIDES:
        values[side] = torch.full((50, batch.columns[side], DIM), 9.0)  # what lies behind a sentence is not its own
        for row, i in enumerate(ids):
            values[side][row, : len(delta(i, 1, side))] = factor * delta(i, 1, side)
    broken = torch.zeros(50, dtype=torch.bool)
    members = [i for i in ids if i in set(neighbors.cache_ids.tolist())]
    broken[members[1]] = True
    storing = perturbations.store(batch, 1, values, broken, factor)
    kept = [i for i in members if i != members[1]]
    assert [row for row, _ in storing.averages()] == kept
    cache.commit()
    assert reader_of(cache).ids.tolist() == kept
    for side in SIDES:
        for i, got in zip(kept, reader_of(cache).read(kept, side)):
            torch.testing.assert_close(got, delta(i, 1, side), rtol=1e-6, atol=1e-8)
