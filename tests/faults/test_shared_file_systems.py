"""What servers of shared file systems do: late files, stale handles, stalls, short reads, and manifests that rot."""

from __future__ import annotations

import errno
import os
import time
from typing import Set

import pytest

from fairseq_adv.cache import open_cache
from fairseq_adv.cache.files import Files, files
from fairseq_adv.cache.opening import check_room, folder_bytes
from tests.faults.failing_calls import fail_call
from tests.unit.cache.caches import assert_same, contents, open_for_writing, put, reader_of, refresh

IDS = list(range(20))
pytestmark = pytest.mark.usefixtures("either_cache")


class StaleHandles:
    """A server that forgets the handles of a moment: each descriptor of then fails until its file is opened anew."""

    def __init__(self, monkeypatch):
        self.stale: Set[int] = set()
        self.reopened = 0
        preadv, plain_open = Files.preadv, Files.open

        def open_anew(files, *args):
            fd = plain_open(files, *args)
            self.reopened += fd in self.stale
            self.stale.discard(fd)
            return fd

        def read(files, fd, *args):
            if fd in self.stale:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return preadv(files, fd, *args)

        monkeypatch.setattr(Files, "open", open_anew)
        monkeypatch.setattr(Files, "preadv", read)


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_a_stale_handle_is_replaced(tmp_path, monkeypatch, dtype):
    cache = open_for_writing(tmp_path, dtype, shard_bytes=1)
    cache.begin_refresh(1)
    for i in IDS:
        put(cache, [i], 1)
    cache.commit()
    want, server = contents(cache), StaleHandles(monkeypatch)
    monkeypatch.setattr(files, "retry_seconds", 5.0)
    server.stale |= set(reader_of(cache)._descriptors.values())
    number = len(server.stale)
    assert number == len(IDS)
    start = time.monotonic()
    assert_same(contents(cache), want)
    assert server.reopened == number and time.monotonic() - start < 5
    server.stale |= set(reader_of(cache)._descriptors.values())
    means, norms = reader_of(cache).read_means(IDS, "src")
    assert means.shape[0] == norms.shape[0] == len(IDS) and not server.stale


def test_a_file_that_stays_stale_is_named_after_the_bound(tmp_path, monkeypatch):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)

    def never(self, fd, buffer, offset):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Files, "preadv", never)
    monkeypatch.setattr(files, "retry_seconds", 0.3)
    start = time.monotonic()
    with pytest.raises(OSError, match=r"w0000.*for 0\.3 s; is the cache directory mounted"):
        reader_of(cache).read(IDS, "src")
    assert time.monotonic() - start < 3
    assert len(reader_of(cache)._descriptors) <= 1


def test_a_stall_is_only_slow(tmp_path, monkeypatch):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)
    want, preadv, pauses = contents(cache), Files.preadv, iter([0.3])

    def stalling(self, fd, buffer, offset):
        time.sleep(next(pauses, 0))
        return preadv(self, fd, buffer, offset)

    monkeypatch.setattr(Files, "preadv", stalling)
    start = time.monotonic()
    assert_same(contents(open_cache(tmp_path)), want)
    assert time.monotonic() - start >= 0.3


def test_a_manifest_that_no_pointer_vouches_for_has_its_own_checksum(tmp_path):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)
    want, path = contents(cache), next(tmp_path.glob("gen-000001-*/MANIFEST.json"))
    refresh(cache, IDS, 2)
    good = path.read_text()
    assert_same(contents(open_cache(tmp_path, generation=1)), want)
    for old, new in (('"epoch": 1', '"epoch": 9'), ('"epsilon": 0.5', '"epsilon": 0.7'), ('"num_records": 20', "")):
        assert old in good
        path.write_text(good.replace(old, new))
        with pytest.raises(ValueError, match=r"gen-000001-\w+/MANIFEST\.json is damaged"):
            open_cache(tmp_path, generation=1)


def test_shards_that_generations_share_count_once(tmp_path):
    cache = open_for_writing(tmp_path)
    cache.begin_refresh(1)
    put(cache, IDS, 1)
    cache.prepare_checkpoint()
    state = cache.state_dict()
    for _ in range(3):  # each resume puts the shards into a folder of its own too
        cache.close()
        cache = open_for_writing(tmp_path)
        cache.load_state_dict(state)
    shards = list(tmp_path.glob("gen-*/*.safetensors"))
    assert len(shards) == 4
    assert folder_bytes(*(str(path.parent) for path in shards)) == shards[0].stat().st_size
    usage = os.statvfs(tmp_path)
    free = usage.f_bavail * usage.f_frsize
    with pytest.raises(ValueError, match="GB free, two generations of this cache"):
        check_room(str(tmp_path), free + 10**9)


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
    opened: Set[int] = set()
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
    assert len(reader_of(cache).shards) == len(IDS) > 5
