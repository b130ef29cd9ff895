"""The trainer's handle: averages, refusals, commits, checkpoints and what is deleted."""

from __future__ import annotations

import re
from typing import Dict

import pytest
import torch
from torch import Tensor

from fairseq_adv.cache import CacheSpec, PerturbationCache, open_cache
from tests.unit.cache.caches import (
    DIM,
    EPSILON,
    assert_same,
    contents,
    delta,
    on_ranks,
    open_for_writing,
    put,
    reader_of,
    refresh,
    spec,
)

IDS = [2, 3, 5, 8, 13, 21]


def test_moving_average_over_refreshes(tmp_path):
    cache = open_for_writing(tmp_path, ema=0.3)
    expected: Dict[int, Tensor] = {}
    for epoch in (1, 2, 3):
        refresh(cache, IDS, epoch)
        for i in IDS:
            new = delta(i, epoch, "src").double()
            expected[i] = new if epoch == 1 else 0.3 * expected[i] + 0.7 * new
    for i, got in zip(IDS, reader_of(cache).read(IDS, "src")):
        torch.testing.assert_close(got, expected[i].float(), rtol=1e-5, atol=1e-7)


# Each refresh rounds once: by half a step of the format, relative to the largest value of a row. A refresh keeps α of
# what was there, error and all, so that the errors sum to less than step / (1 − α).
HALF_STEP = {"fp16": 2.0**-11, "int8": 0.5 / 127}


@pytest.mark.parametrize("dtype", HALF_STEP)
def test_moving_average_in_a_rounding_format(tmp_path, dtype):
    alpha, expected, largest = 0.6, {}, {}  # type: float, Dict[int, Tensor], Dict[int, float]
    cache = open_for_writing(tmp_path, dtype, ema=alpha)
    for epoch in range(1, 6):
        refresh(cache, IDS, epoch)
        for i in IDS:
            new = delta(i, epoch, "tgt").double()
            expected[i] = new if epoch == 1 else alpha * expected[i] + (1 - alpha) * new
            largest[i] = max(largest.get(i, 0.0), expected[i].abs().max().item())
    for i, got in zip(IDS, reader_of(cache).read(IDS, "tgt")):
        bound = 1.1 * HALF_STEP[dtype] / (1 - alpha) * largest[i]
        error = (got.double() - expected[i]).abs().max().item()
        assert 0 < error < bound  # and rounded it is
        assert error < 0.05 * (delta(i, 5, "tgt").double() - expected[i]).abs().max().item()  # far from no average


@pytest.mark.parametrize("sealed_between", [False, True])
def test_the_last_put_of_a_sample_counts_and_is_averaged_once(tmp_path, sealed_between):
    cache = open_for_writing(tmp_path, ema=0.5)
    refresh(cache, IDS, 1)
    cache.begin_refresh(2)
    put(cache, IDS, 7)  # the same update, tried before
    if sealed_between:
        cache.prepare_checkpoint()
    put(cache, IDS, 2)
    cache.commit()
    for i, got in zip(IDS, reader_of(cache).read(IDS, "tgt")):
        torch.testing.assert_close(got, 0.5 * delta(i, 1, "tgt") + 0.5 * delta(i, 2, "tgt"))


def test_samples_left_out_are_carried_over(tmp_path):
    cache = open_for_writing(tmp_path, "int8")
    refresh(cache, IDS, 1)
    before = contents(cache)
    cache.begin_refresh(2)
    put(cache, IDS[:2], 2)
    cache.commit(expected_ids=[*IDS, 99])  # 99 never had a perturbation
    assert reader_of(cache).ids.tolist() == IDS and reader_of(cache).manifest.num_records == len(IDS)
    assert reader_of(cache).update_nums(IDS) == [2, 2, 1, 1, 1, 1]
    for i in IDS[2:]:
        torch.testing.assert_close(contents(cache)[i, "src"], before[i, "src"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), EPSILON * 1.01])
def test_values_that_must_not_be_cached(tmp_path, bad):
    cache = open_for_writing(tmp_path)
    cache.begin_refresh(1)
    values = torch.zeros(3, DIM)
    values[1, 2] = bad
    with pytest.raises(ValueError, match="tgt perturbation of sample 4 "):
        cache.put([4], 1, [torch.zeros(3, DIM)], [values])


@pytest.mark.parametrize(("shape", "count"), [((3, DIM + 1), 1), ((DIM,), 1), ((3, DIM), 2)])
def test_values_of_a_wrong_shape(tmp_path, shape, count):
    cache = open_for_writing(tmp_path)
    cache.begin_refresh(1)
    with pytest.raises(ValueError, match=r"sample 4 must be tokens x 6|2 src perturbations for 1 samples"):
        cache.put([4], 1, [torch.zeros(shape)] * count, [torch.zeros(shape)] * count)


def test_another_configuration_is_refused_field_by_field(tmp_path):
    open_for_writing(tmp_path).close()
    other = CacheSpec({**spec().fields, "data.num_samples": 7, "extra": "x"}, epsilon=0.25, dtype="fp32")
    with pytest.raises(ValueError) as caught:
        PerturbationCache(str(tmp_path), other, ema=0.25, run_id="run")
    named = re.findall(r"([\w.]+): (\S+) -> ([\w.]+)", str(caught.value))
    assert named == [("data.num_samples", "100", "7"), ("epsilon", "0.5", "0.25"), ("extra", "(none)", "x")]
    open_for_writing(tmp_path, run_id="a run that the refused one does not keep out")


def test_no_room_on_the_disk_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"two generations of this cache take up to 1000000000\.00 GB"):
        open_for_writing(tmp_path, expected_bytes=10**18)
    assert not list(tmp_path.iterdir())


def test_a_refresh_must_be_committed_before_the_next(tmp_path):
    cache = open_for_writing(tmp_path)
    cache.begin_refresh(1)
    put(cache, IDS, 1)
    cache.begin_refresh(1)  # going on
    with pytest.raises(RuntimeError, match="refresh of epoch 1 is in progress"):
        cache.begin_refresh(2)
    cache.commit()
    assert reader_of(cache).ids.tolist() == IDS
    with pytest.raises(RuntimeError, match="no refresh is in progress"):
        cache.commit()


def resumed(directory, state, **options):
    cache = open_for_writing(directory, **options)
    cache.load_state_dict(state)
    return cache


def test_resume_inside_a_refresh_drops_what_came_after_the_checkpoint(tmp_path):
    whole = open_for_writing(tmp_path / "whole")
    for epoch in (1, 2):
        refresh(whole, IDS, epoch)
    cache = open_for_writing(tmp_path / "cut")
    refresh(cache, IDS, 1)
    cache.begin_refresh(2)
    put(cache, IDS[:3], 2)
    cache.prepare_checkpoint()
    state = cache.state_dict()
    put(cache, IDS, 9)
    cache.prepare_checkpoint()  # sealed, but no checkpoint that is loaded names it
    cache = resumed(tmp_path / "cut", state)
    assert cache.refresh_epoch == 2 and cache.generation == 1
    cache.begin_refresh(2)
    put(cache, IDS[3:], 2)
    cache.commit()
    assert_same(contents(cache), contents(whole))


def test_two_checkpoints_of_one_refresh_may_both_be_resumed(tmp_path):
    cache = open_for_writing(tmp_path)
    cache.begin_refresh(1)
    put(cache, IDS[:3], 1)
    cache.prepare_checkpoint()
    early = cache.state_dict()
    put(cache, IDS[3:], 1)
    cache.commit()
    late, first = cache.state_dict(), contents(cache)
    cache = resumed(tmp_path, early)
    cache.begin_refresh(1)
    put(cache, IDS, 5)  # another course of events
    cache.commit()
    assert not torch.equal(contents(cache)[13, "src"], first[13, "src"])
    assert_same(contents(resumed(tmp_path, late)), first)


def test_resume_without_the_directory_says_what_to_do(tmp_path):
    cache = open_for_writing(tmp_path / "a")
    refresh(cache, IDS, 1)
    for state in (cache.state_dict(), {"committed": None, "in_progress": {**cache.state_dict()["committed"]}}):
        with pytest.raises(ValueError, match=r"needs generation 1 .*--cache-dir.*--reset-dataloader"):
            resumed(tmp_path / "b", state)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_another_number_of_ranks_on_resume_inside_a_refresh(tmp_path, before, after):
    def first(rank, comm):
        cache = open_for_writing(tmp_path, rank=rank, world_size=before, comm=comm)
        cache.begin_refresh(1)
        put(cache, IDS[rank:4:before], 1)
        cache.prepare_checkpoint()
        return cache.state_dict()

    states = on_ranks(before, first)
    assert all(state == states[0] for state in states)

    def second(rank, comm):
        cache = open_for_writing(tmp_path, rank=rank, world_size=after, comm=comm)
        cache.load_state_dict(states[0])
        cache.begin_refresh(1)
        put(cache, IDS[2 + rank :: after], 1)  # 2 and 3 were there before; a resumed iterator may overlap
        cache.commit(expected_ids=IDS)
        return contents(cache)

    for got in on_ranks(after, second):
        assert_same(got, {(i, side): delta(i, 1, side) for side in ("src", "tgt") for i in IDS})


def test_superseded_generations_go_when_no_checkpoint_names_them(tmp_path):
    saves, directory = tmp_path / "saves", tmp_path / "cache"
    saves.mkdir()
    cache, folders = open_for_writing(directory, checkpoint_folder=str(saves)), {}
    for epoch in (1, 2, 3):
        refresh(cache, IDS, epoch)
        torch.save({"extra_state": cache.state_dict(), "model": torch.zeros(9)}, saves / f"checkpoint{epoch}.pt")
        folders[epoch] = reader_of(cache).manifest.name
    assert cache.delete_superseded() == []
    (saves / "checkpoint1.pt").unlink()
    assert cache.delete_superseded() == [folders[1]]
    moved = tmp_path / "moved"
    moved.mkdir()
    cache.close()
    saves.rename(moved / "saves")
    directory.rename(moved / "cache")
    cache = open_for_writing(moved / "cache")
    assert cache.delete_superseded() == []  # moved together, the checkpoints are still found
    (moved / "saves" / "checkpoint2.pt").unlink()
    assert cache.delete_superseded() == [folders[2]]
    assert open_cache(moved / "cache").manifest.name == folders[3]
