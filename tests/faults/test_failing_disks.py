"""Disks that fail while the cache is written: one error on every rank, and the parent stays usable."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import pytest
import torch

from fairseq_adv.cache import open_cache
from fairseq_adv.cache.writing import Refreshed
from tests.faults.failing_calls import fail_call
from tests.unit.cache import caches
from tests.unit.cache.caches import (
    DIM,
    assert_same,
    contents,
    delta,
    on_ranks,
    open_for_writing,
    put,
    reader_of,
    refresh,
)

IDS = list(range(40))
pytestmark = pytest.mark.usefixtures("either_cache")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("method", ["write", "fsync", "rename"])
@pytest.mark.parametrize("number", range(4))
def test_a_failing_disk_leaves_the_parent_and_can_be_resumed(tmp_path, monkeypatch, method, number, error):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)
    state, before = cache.state_dict(), contents(cache)
    with monkeypatch.context() as patch:
        calls = fail_call(patch, method, number, error)
        try:
            refresh(cache, IDS, 2)
            assert len(calls) <= number  # shard, manifest and CURRENT: the call never came
        except OSError as caught:
            assert os.strerror(error) in str(caught) and "failed" in str(caught)
        assert not list(tmp_path.rglob("*.tmp-*"))
    cache.close()
    again = open_for_writing(tmp_path)
    again.load_state_dict(state)
    assert_same(contents(again), before)
    refresh(again, IDS, 2)
    assert open_cache(tmp_path).manifest.generation == 2


@pytest.mark.parametrize("when", ["put", "prepare_checkpoint", "commit"])
def test_every_rank_stops_with_the_same_error(tmp_path, monkeypatch, when):
    def is_rank_one(source, target):
        return os.path.basename(target).startswith("w0001")

    def train(rank, comm):
        size = 1 if when == "put" else 1 << 20
        cache = open_for_writing(tmp_path, rank=rank, world_size=2, comm=comm, shard_bytes=size)
        cache.begin_refresh(1)
        put(cache, IDS[rank::2], 1)
        getattr(cache, "commit" if when == "put" else when)()

    fail_call(monkeypatch, "rename", 0, errno.ENOSPC, only=is_rank_one)
    errors = on_ranks(2, train)
    assert all(isinstance(error, OSError) for error in errors) and str(errors[0]) == str(errors[1])
    assert "rank 1: " in str(errors[0]) and "No space left" in str(errors[0])


def put_beside(cache, ids, epoch):
    """As a training does: the thread beside it averages, encodes and writes."""
    sides = {side: [delta(i, epoch, side) for i in ids] for side in caches.SIDES}
    return cache.put_later(epoch, lambda: Refreshed(ids, sides))


@pytest.mark.parametrize("meeting", ["prepare_checkpoint", "commit"])
@pytest.mark.parametrize("method", ["write", "fsync", "rename"])
def test_a_disk_that_fails_beside_the_training_stops_every_rank(tmp_path, monkeypatch, method, meeting):
    def on_rank_one(*args):
        return threading.current_thread().name == "writing perturbations" and one.is_set()

    one = threading.Event()

    def train(rank, comm):
        cache: Any = open_for_writing(tmp_path, rank=rank, world_size=2, comm=comm, shard_bytes=1)
        cache.begin_refresh(1)
        if rank == 0:
            put_beside(cache, IDS[::2], 1).result()
            one.set()
        one.wait(10)
        if rank == 1:
            for i in IDS[1::2]:
                put_beside(cache, [i], 1)  # training goes on: none of these raises
        getattr(cache, meeting)()

    fail_call(monkeypatch, method, 3, errno.EIO, only=on_rank_one)
    errors = on_ranks(2, train)
    assert all(isinstance(error, OSError) for error in errors) and str(errors[0]) == str(errors[1])
    assert "rank 1: " in str(errors[0]) and "Input/output error" in str(errors[0])


@pytest.mark.parametrize("ranks", [1, 2])
def test_values_that_must_not_be_cached_are_refused_beside_the_training(tmp_path, ranks):
    def train(rank, comm):
        cache: Any = open_for_writing(tmp_path, rank=rank, world_size=ranks, comm=comm)
        cache.begin_refresh(1)
        bad = torch.full((2, DIM), float("nan") if rank == ranks - 1 else 0.0)
        cache.put_later(1, lambda: Refreshed([rank], {side: [bad] for side in caches.SIDES}))
        cache.commit()

    errors = on_ranks(ranks, train)
    assert all(isinstance(error, ValueError) for error in errors) and len({str(error) for error in errors}) == 1
    assert f"sample {ranks - 1} is not finite" in str(errors[0])
    assert not (tmp_path / "CURRENT").exists()


def test_one_rank_alone_stops_at_its_next_batch(tmp_path, monkeypatch):
    cache = open_for_writing(tmp_path, shard_bytes=1)
    cache.begin_refresh(1)
    fail_call(monkeypatch, "fsync", 0, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        put_beside(cache, IDS[:2], 1).result()
    with pytest.raises(OSError, match="No space left"):
        put_beside(cache, IDS[2:4], 1)


def test_what_is_written_beside_is_what_is_written_at_once(tmp_path):
    both = [open_for_writing(tmp_path / name, shard_bytes=400) for name in ("beside", "at-once")]
    for epoch in (1, 2):
        for cache, give in zip(both, (put_beside, put)):
            cache.begin_refresh(epoch)
            for first in range(0, 40, 3):
                give(cache, IDS[first : first + 3], epoch)
            cache.prepare_checkpoint()
            cache.commit(expected_ids=IDS)
    assert_same(contents(both[0]), contents(both[1]))
    shards = [[(s["n"], s["size"]) for s in reader_of(cache).manifest.shards] for cache in both]
    assert shards[0] == shards[1] and len(shards[0]) > 5


def test_an_error_of_any_type_stops_every_rank(tmp_path, monkeypatch):
    def train(rank, comm):
        cache: Any = open_for_writing(tmp_path, rank=rank, world_size=2, comm=comm)
        cache.begin_refresh(1)
        if rank == 1:
            cache._writing.writer.seal = lambda: [][0]
        cache.commit()

    errors = on_ranks(2, train)
    assert str(errors[0]) == str(errors[1]) and "rank 1: IndexError" in str(errors[0])


def test_one_sample_from_two_ranks_is_refused(tmp_path):
    def train(rank, comm):
        cache: Any = open_for_writing(tmp_path, rank=rank, world_size=2, comm=comm)
        refresh(cache, IDS[rank::2], 1)
        before = contents(cache)
        cache.begin_refresh(2)
        put(cache, [*IDS[rank::2], 7], 2)
        try:
            cache.commit()
        except ValueError as error:
            return str(error), before
        return None

    results = on_ranks(2, train)
    assert results[0][0] == results[1][0] and "sample 7 was written by two ranks (w0000-" in results[0][0]
    assert_same(contents(open_cache(tmp_path)), results[0][1])
