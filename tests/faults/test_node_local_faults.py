"""Disks and networks that fail while nodes exchange shards: all ranks stop with one error, the parent is usable."""

from __future__ import annotations

import errno
import os

import pytest

from fairseq_adv.cache import open_cache
from tests.faults.failing_calls import fail_call
from tests.unit.cache.caches import ThreadComm, assert_same, contents, on_ranks, open_for_writing, put, refresh

IDS = list(range(20))
pytestmark = pytest.mark.usefixtures("either_cache")


def on_two_nodes(root, action):
    """``action(cache, rank)`` on a rank of each of two nodes; its results or exceptions."""

    def run(rank, comm):
        where = root / f"node{rank}"
        cache = open_for_writing(where, rank=rank, world_size=2, comm=comm, placement="node-local")
        try:
            return action(cache, rank)
        finally:
            cache.close()

    return on_ranks(2, run)


def path_of(argument):
    return os.readlink(f"/proc/self/fd/{argument}") if isinstance(argument, int) else str(argument)


def refresh_fails(root, inject):
    """Commit, fail to refresh after *inject*, see that the parent is whole, refresh anew; the error of the ranks."""

    def first(cache, rank):
        refresh(cache, IDS[rank::2], 1)
        return cache.state_dict(), contents(cache)

    (state, before), _ = on_two_nodes(root, first)

    def second(cache, rank):
        cache.load_state_dict(state)
        refresh(cache, IDS[rank::2], 2)

    with pytest.MonkeyPatch.context() as patch:
        calls = inject(patch)
        errors = on_two_nodes(root, second)
        assert calls is None or calls
    assert all(isinstance(error, OSError) for error in errors), errors
    assert str(errors[0]) == str(errors[1])
    assert not list(root.rglob("*.tmp-*"))
    for node in (0, 1):  # whatever the other place did, nobody has gone ahead alone
        assert open_cache(root / f"node{node}").manifest.generation == 1
        assert_same(contents(open_cache(root / f"node{node}")), before)

    def third(cache, rank):
        cache.load_state_dict(state)
        assert_same(contents(cache), before)
        refresh(cache, IDS[rank::2], 2)
        return contents(cache)

    left, right = on_two_nodes(root, third)
    assert_same(left, right)
    assert all(open_cache(root / f"node{node}").manifest.generation == 2 for node in (0, 1))
    return str(errors[0])


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("method", ["write", "fsync", "rename"])
def test_the_disk_of_a_receiving_node_fails(tmp_path, method, error):
    def arrives(*args):
        return "/node1/" in path_of(args[0]) and os.path.basename(path_of(args[0])).startswith("w0000")

    message = refresh_fails(tmp_path, lambda patch: fail_call(patch, method, 0, error, only=arrives))
    assert "exchanging shards" in message and "rank 1: " in message and os.strerror(error) in message


def test_the_disk_of_a_sending_node_fails(tmp_path):
    def is_sent(fd, buffer, offset):
        return "/node0/gen-000002" in path_of(fd)

    message = refresh_fails(tmp_path, lambda patch: fail_call(patch, "preadv", 0, errno.EIO, only=is_sent))
    assert "rank 0: " in message and "Input/output error" in message


@pytest.mark.parametrize("node", [0, 1])
def test_a_manifest_that_cannot_be_written_leaves_every_pointer(tmp_path, node):
    def is_manifest(source, target):
        return f"/node{node}/gen-000002" in target and target.endswith("MANIFEST.json")

    message = refresh_fails(tmp_path, lambda patch: fail_call(patch, "rename", 0, errno.ENOSPC, only=is_manifest))
    assert f"rank {node}: " in message and "No space left" in message


def test_bytes_that_change_on_their_way_are_noticed(tmp_path):
    def inject(patch):
        plain = ThreadComm.broadcast_bytes

        def flipped(self, data, src):
            plain(self, data, src)
            if self.rank != src:
                data[len(data) // 2] ^= 4

        patch.setattr(ThreadComm, "broadcast_bytes", flipped)

    message = refresh_fails(tmp_path, inject)
    assert "arrived damaged" in message and "rank 0: shard " in message and "rank 1: shard " in message


def test_a_shard_that_rotted_before_it_is_sent_is_named(tmp_path):
    def first(cache, rank):
        refresh(cache, IDS[rank::2], 1)
        return cache.state_dict()

    state = on_two_nodes(tmp_path, first)[0]
    folder = tmp_path / "node0" / state["committed"]["name"]
    path = next(folder.glob("w0001*"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    (tmp_path / "node1").rename(tmp_path / "aside")
    errors = on_two_nodes(tmp_path, lambda cache, rank: cache.load_state_dict(state))
    assert f"shard {path} is damaged" in str(errors[0]) and str(errors[0]) == str(errors[1])


def test_a_pointer_that_one_node_could_not_write_is_written_at_the_next_commit(tmp_path, monkeypatch):
    def is_pointer(source, target):
        return target.endswith("node1/CURRENT")

    def first(cache, rank):
        refresh(cache, IDS[rank::2], 1)
        return cache.state_dict()

    state = on_two_nodes(tmp_path, first)[0]

    def second(cache, rank):
        cache.load_state_dict(state)
        refresh(cache, IDS[rank::2], 2)
        return contents(cache)

    with monkeypatch.context() as patch:
        fail_call(patch, "rename", 0, errno.EIO, only=is_pointer)
        errors = on_two_nodes(tmp_path, second)
    assert str(errors[0]) == str(errors[1]) and "rank 1: " in str(errors[0])
    assert_same(*on_two_nodes(tmp_path, second))  # the checkpoint is the truth, not the pointers
    left, right = (open_cache(tmp_path / f"node{node}").manifest for node in (0, 1))
    assert left == right and left.generation == 2


def test_a_rank_whose_own_disk_fails_stops_all_nodes(tmp_path, monkeypatch):
    def train(cache, rank):
        cache.begin_refresh(1)
        put(cache, IDS[rank::2], 1)
        cache.prepare_checkpoint()

    def is_own(source, target):
        return os.path.basename(target).startswith("w0001") and "/node1/" in target

    fail_call(monkeypatch, "rename", 0, errno.ENOSPC, only=is_own)
    errors = on_two_nodes(tmp_path, train)
    assert str(errors[0]) == str(errors[1]) and "rank 1: " in str(errors[0]) and "No space left" in str(errors[0])
