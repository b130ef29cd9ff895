"""Reading: against what was put in, from other processes, and with few descriptors."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
import torch

from fairseq_adv.cache import open_cache
from fairseq_adv.cache import reader as reader_module
from tests.unit.cache.caches import DIM, assert_same, contents, delta, open_for_writing, put, refresh

IDS = [90, 3, 41, 7, 62, 18]


@pytest.fixture
def directory(tmp_path):
    cache = open_for_writing(tmp_path, shard_bytes=1)
    cache.begin_refresh(1)
    for i in IDS:
        put(cache, [i], 1)
    cache.commit()
    cache.close()
    return tmp_path


def test_rows_means_and_norms_against_what_was_put_in(directory):
    reader, wanted = open_cache(directory), [41, 3, 3, 90]
    for side in ("src", "tgt"):
        for i, got in zip(wanted, reader.read(wanted, side)):
            torch.testing.assert_close(got, delta(i, 1, side), rtol=1e-6, atol=1e-8)
        means, norms = reader.read_means(wanted, side)
        for i, mean, norm in zip(wanted, means, norms):
            torch.testing.assert_close(mean, delta(i, 1, side).sum(0) / len(delta(i, 1, side)))
            torch.testing.assert_close(norm, delta(i, 1, side).pow(2).sum().sqrt())
    assert reader.ids.tolist() == sorted(IDS)
    assert reader.contains(np.array([3, 4, 90, 91, -1])).tolist() == [True, False, True, False, False]
    assert reader.read([], "src") == [] and reader.read_means([], "tgt")[0].shape == (0, DIM)


def test_what_is_not_there_is_named(directory):
    reader = open_cache(directory)
    with pytest.raises(ValueError, match=r"samples \[4, 5\] are not cached in "):
        reader.read([3, 4, 5], "src")
    with pytest.raises(ValueError, match="side 'middle' is not cached"):
        reader.read_means([3], "middle")
    with pytest.raises(FileNotFoundError, match="holds no committed generation 7"):
        open_cache(directory, generation=7)
    with pytest.raises(FileNotFoundError, match="is not a cache directory"):
        open_cache(directory / "nowhere")


def _read(reader):
    return {key: value.tolist() for key, value in contents(reader).items()}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same(directory, method):
    reader = open_cache(directory)
    want = _read(reader)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_read, (reader,)) == want
    assert _read(reader) == want


def test_descriptors_are_few_and_given_back(directory, monkeypatch):
    monkeypatch.setattr(reader_module, "MAX_DESCRIPTORS", 2)
    before = len(os.listdir("/proc/self/fd"))
    reader = open_cache(directory)
    want = contents(reader)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert_same(contents(reader), want)


def test_refreshes_leave_no_descriptor_open(tmp_path):
    cache = open_for_writing(tmp_path)
    counts = []
    for epoch in range(1, 5):
        refresh(cache, IDS, epoch)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert len(set(counts)) == 1
