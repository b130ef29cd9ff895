"""Faults of disks, networks and machines: what the cache must do about each, as ``docs/cache.md`` promises."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fairseq_adv.cache import open_cache
from fairseq_adv.cache.files import Files, files
from fairseq_adv.cache.store import Refreshed
from fairseq_adv.cache.verify import verify_generation
from tests.unit.cache.caches import DIM, assert_same, contents, delta, on_ranks, open_for_writing, put, refresh

ROOT = Path(__file__).resolve().parents[2]
IDS = list(range(40))


def fail_call(monkeypatch, method, number, error, times=1, only=lambda *args: True):
    """Let calls *number* … of ``Files.<method>`` (counted from 0, those that *only* accepts) raise *error*."""
    original, calls = getattr(Files, method), []

    def faulty(self, *args):
        if only(*args):
            calls.append(args)
            if number <= len(calls) - 1 < number + times:
                raise OSError(error, os.strerror(error))
        return original(self, *args)

    monkeypatch.setattr(Files, method, faulty)
    return calls


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
    sides = {side: [delta(i, epoch, side) for i in ids] for side in ("src", "tgt")}
    return cache.put_later(epoch, lambda: Refreshed(ids, sides))


@pytest.mark.parametrize("meeting", ["prepare_checkpoint", "commit"])
@pytest.mark.parametrize("method", ["write", "fsync", "rename"])
def test_a_disk_that_fails_beside_the_training_stops_every_rank(tmp_path, monkeypatch, method, meeting):
    def on_rank_one(*args):
        return threading.current_thread().name == "writing perturbations" and one.is_set()

    one = threading.Event()

    def train(rank, comm):
        cache = open_for_writing(tmp_path, rank=rank, world_size=2, comm=comm, shard_bytes=1)
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
        cache = open_for_writing(tmp_path, rank=rank, world_size=ranks, comm=comm)
        cache.begin_refresh(1)
        bad = torch.full((2, DIM), float("nan") if rank == ranks - 1 else 0.0)
        cache.put_later(1, lambda: Refreshed([rank], {"src": [bad], "tgt": [bad]}))
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
    caches = [open_for_writing(tmp_path / name, shard_bytes=500) for name in ("beside", "at-once")]
    for epoch in (1, 2):
        for cache, give in zip(caches, (put_beside, put)):
            cache.begin_refresh(epoch)
            for first in range(0, 40, 3):
                give(cache, IDS[first : first + 3], epoch)
            cache.prepare_checkpoint()
            cache.commit(expected_ids=IDS)
    assert_same(contents(caches[0]), contents(caches[1]))
    shards = [[(s["n"], s["size"]) for s in cache.reader.manifest.shards] for cache in caches]
    assert shards[0] == shards[1] and len(shards[0]) > 5


def test_an_error_of_any_type_stops_every_rank(tmp_path, monkeypatch):
    def train(rank, comm):
        cache = open_for_writing(tmp_path, rank=rank, world_size=2, comm=comm)
        cache.begin_refresh(1)
        if rank == 1:
            cache._writer.seal = lambda: [][0]
        cache.commit()

    errors = on_ranks(2, train)
    assert str(errors[0]) == str(errors[1]) and "rank 1: IndexError" in str(errors[0])


def test_one_sample_from_two_ranks_is_refused(tmp_path):
    def train(rank, comm):
        cache = open_for_writing(tmp_path, rank=rank, world_size=2, comm=comm)
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


# ---- damage -----------------------------------------------------------------------------------------------


def shard_of(directory):
    return next(directory.glob("gen-*/w*.safetensors"))


def regions(path):
    """Name -> offset of a byte inside each tensor of a shard and inside its header."""
    import json

    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    places = {name: end + sum(info["data_offsets"]) // 2 for name, info in header.items() if name != "__metadata__"}
    return {"length of header": 1, "header": end // 2, **places}


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_a_flipped_bit_anywhere_is_found_and_named(tmp_path, dtype):
    cache = open_for_writing(tmp_path, dtype)
    refresh(cache, IDS, 1)
    path = shard_of(tmp_path)
    good, places = path.read_bytes(), regions(path)
    assert {"ids", "src", "tgt_mean", "src_off", "tgt_crc", "src_norm"} <= set(places)
    for name, offset in places.items():
        data = bytearray(good)
        data[offset] ^= 0x10
        path.write_bytes(data)
        damaged = verify_generation(str(tmp_path), cache.reader.manifest)
        assert damaged and path.name in damaged[0], name
        is_record = name in ("src", "tgt") or name.endswith(("_mean", "_scale"))
        assert damaged[0].startswith("sample " if is_record else "shard "), name
        with pytest.raises(ValueError, match=r"w0000.*damaged"):
            reader = open_cache(tmp_path)
            for side in reader.sides:
                reader.read(reader.ids, side)
                reader.read_means(reader.ids, side)
    path.write_bytes(good)
    assert verify_generation(str(tmp_path), cache.reader.manifest) == []


def test_truncation_and_extension_before_and_after_opening(tmp_path):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)
    path = shard_of(tmp_path)
    good = path.read_bytes()
    for size in (0, 5, 100, len(good) // 2, len(good) - 1, len(good) + 1):
        path.write_bytes(good[:size] + b"x" * (size - len(good)))
        with pytest.raises(ValueError, match=f"shard .*{path.name} has {size} bytes"):
            open_cache(tmp_path)
        assert path.name in verify_generation(str(tmp_path), cache.reader.manifest)[0]
    path.write_bytes(good)
    reader = open_cache(tmp_path)
    os.truncate(path, len(good) // 2)
    with pytest.raises(ValueError, match=rf"{path.name}: the src record of sample \d+ is damaged .*truncated"):
        reader.read(reader.ids, "src")
        reader.read_means(reader.ids, "src")


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST.json", "SPEC.json"])
def test_damage_of_the_small_files_is_named(tmp_path, name):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)
    state = cache.state_dict()
    cache.close()
    path = next(tmp_path.rglob(name))
    good = path.read_bytes()
    for data in (good[:-5], bytes([good[0] ^ 1]) + good[1:], good.replace(b"1", b"2")):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}.* damaged|another configuration"):
            if name == "CURRENT":
                open_cache(tmp_path)
            else:
                open_for_writing(tmp_path).load_state_dict(state)


# ---- networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ESTALE])
@pytest.mark.parametrize("method", ["open", "preadv"])
def test_late_files_are_waited_for_within_a_bound(tmp_path, monkeypatch, method, error):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)
    with monkeypatch.context() as patch:
        fail_call(patch, method, 2, error, times=3)
        assert_same(contents(open_cache(tmp_path)), contents(cache))
    monkeypatch.setattr(files, "retry_seconds", 0.2)
    fail_call(monkeypatch, method, 2, error, times=10**6)
    with pytest.raises(OSError, match=r"w0000.*for 0\.2 s; is the cache directory mounted"):
        open_cache(tmp_path)


def test_short_reads_are_completed(tmp_path, monkeypatch):
    cache = open_for_writing(tmp_path, "int8")
    refresh(cache, IDS, 1)
    want = contents(cache)
    monkeypatch.setattr(Files, "preadv", lambda self, fd, buffer, offset: os.preadv(fd, [buffer[:7]], offset))
    assert_same(contents(open_cache(tmp_path)), want)


def test_a_directory_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    fail_call(monkeypatch, "open", 0, errno.EROFS, only=lambda path, flags, *mode: flags & os.O_CREAT)
    with pytest.raises(ValueError, match=r"cannot write to cache directory .*: Read-only file system"):
        open_for_writing(tmp_path)


def test_a_low_limit_of_open_files(tmp_path, monkeypatch):
    cache = open_for_writing(tmp_path, shard_bytes=1)
    cache.begin_refresh(1)
    for i in IDS:
        put(cache, [i], 1)
    cache.commit()
    opened = set()
    plain_open, plain_close = os.open, os.close

    def limited(self, path, flags, mode=0o666):
        if len(opened) >= 5:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        fd = plain_open(path, flags, mode)
        opened.add(fd)
        return fd

    def close(fd):
        opened.discard(fd)
        plain_close(fd)

    want = contents(cache)
    monkeypatch.setattr(Files, "open", limited)
    monkeypatch.setattr(os, "close", close)
    assert_same(contents(open_cache(tmp_path)), want)
    assert len(cache.reader.shards) == len(IDS) > 5


# ---- kills and second jobs --------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from fairseq_adv.cache.files import Files
from tests.unit.cache.caches import open_for_writing, put
import json
directory, method, number, state = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
cache = open_for_writing(directory)
cache.load_state_dict(state)
original, calls = getattr(Files, method), []
def deadly(self, *args):
    calls.append(args)
    if len(calls) - 1 == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args)
setattr(Files, method, deadly)
cache.begin_refresh(2)
put(cache, list(range(40)), 2)
cache.commit()
"""


@pytest.mark.parametrize(
    ("method", "number"), [("write", 0), ("rename", 0), ("write", 1), ("rename", 1), ("rename", 2), ("fsync", 5)]
)
def test_kill_in_a_seal_and_around_manifest_and_pointer(tmp_path, method, number):
    import json

    whole = open_for_writing(tmp_path / "whole")
    for epoch in (1, 2):
        refresh(whole, IDS, epoch)
    cache = open_for_writing(tmp_path / "cut")
    refresh(cache, IDS, 1)
    state, before = cache.state_dict(), contents(cache)
    cache.close()
    words = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), method, str(number), json.dumps(state)]
    died = subprocess.run(words, cwd=ROOT, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    again = open_for_writing(tmp_path / "cut")
    again.load_state_dict(state)
    assert_same(contents(again), before)
    refresh(again, IDS, 2)
    assert_same(contents(again), contents(whole))


HOLDER = """
import sys, time
from tests.unit.cache.caches import open_for_writing
cache = open_for_writing(sys.argv[1], run_id="other")
print("ready", flush=True)
sys.stdin.readline()
try:
    cache.begin_refresh(1)
    cache.commit()
except OSError as error:
    print(error)
"""


def test_a_second_job_is_refused_and_after_a_takeover_the_first_is_fenced(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(ValueError, match=rf"in use by run other \(process {first.pid} on .*--cache-takeover"):
            open_for_writing(tmp_path)
        second = open_for_writing(tmp_path, takeover=True)
        refresh(second, IDS, 1)
        want = contents(second)
        out, _ = first.communicate("go\n", timeout=30)
    assert "lost its cache directory" in out and "run run" in out
    assert_same(contents(open_cache(tmp_path)), want)


def test_the_directory_of_a_dead_job_is_free(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        first.kill()
    assert (tmp_path / "OWNER").exists()
    refresh(open_for_writing(tmp_path), IDS, 1)
