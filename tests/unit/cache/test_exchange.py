"""Caches on disks of their own: equal after each checkpoint and commit, filled when they come back empty."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fairseq_adv.cache import exchange, open_cache
from fairseq_adv.cache.verify import verify_generation
from tests.unit.cache.caches import ThreadComm, assert_same, contents, on_ranks, open_for_writing, put, refresh
from tests.unit.cache.on_gloo import CHUNK, IDS

ROOT = Path(__file__).resolve().parents[3]


def node_cache(root, rank, comm, nodes, **options):
    """The cache of *rank* on node ``nodes[rank]``."""
    where = root / f"node{nodes[rank]}"
    return open_for_writing(where, rank=rank, world_size=len(nodes), comm=comm, placement="node-local", **options)


def on_nodes(root, nodes, action, **options):
    """``action(cache, rank)`` on each rank; its results. Raises what went wrong."""

    def run(rank, comm):
        cache = node_cache(root, rank, comm, nodes, **options)
        try:
            return action(cache, rank)
        finally:
            cache.close()

    results = on_ranks(len(nodes), run)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def files_of(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def begin(cache, rank):
    """A committed generation, and half a refresh that a checkpoint names."""
    refresh(cache, IDS[rank :: cache.world_size], 1)
    cache.begin_refresh(2)
    put(cache, IDS[rank : len(IDS) // 2 : cache.world_size], 2)
    cache.prepare_checkpoint()
    return cache.state_dict()


def end(cache, rank, state):
    """Resume and end that refresh."""
    cache.load_state_dict(state)
    cache.begin_refresh(2)
    put(cache, IDS[len(IDS) // 2 + rank :: cache.world_size], 2)
    cache.commit(expected_ids=IDS)
    return contents(cache)


@pytest.fixture
def uninterrupted(tmp_path):
    cache = open_for_writing(tmp_path / "uninterrupted")
    for epoch in (1, 2):
        refresh(cache, IDS, epoch)
    return contents(cache)


@pytest.mark.parametrize("nodes", ["01", "0101", "0122"])
def test_every_node_holds_all_after_a_commit(tmp_path, uninterrupted, nodes):
    def train(cache, rank):
        for epoch in (1, 2):
            cache.begin_refresh(epoch)
            for i in IDS[rank :: len(nodes)]:  # several shards from each rank
                put(cache, [i], epoch)
            cache.commit(expected_ids=IDS)
        return contents(cache)

    for got in on_nodes(tmp_path, nodes, train, shard_bytes=1):
        assert_same(got, uninterrupted)
    held = [files_of(tmp_path / f"node{node}") for node in sorted(set(nodes))]
    assert all(other == held[0] for other in held) and len(held[0]) == 2 * (len(IDS) + 1) + 2


def test_samples_carried_over_reach_every_node(tmp_path):
    def train(cache, rank):
        refresh(cache, IDS[rank::2], 1)
        before = contents(cache)
        cache.begin_refresh(2)
        put(cache, [rank], 2)
        cache.commit(expected_ids=IDS)
        return before, contents(cache)

    (before, after), (_, other) = on_nodes(tmp_path, "01", train)
    assert_same(after, other)
    for key in before:
        assert torch.equal(before[key], after[key]) == (key[0] > 1)
    held = [set(files_of(tmp_path / f"node{node}")) for node in "01"]
    assert held[0] == held[1] and any("carried-" in name for name in held[0])


@pytest.mark.parametrize("dead", ["0", "1"])
def test_a_node_that_lost_its_disk_is_filled(tmp_path, uninterrupted, dead):
    state = on_nodes(tmp_path, "01", begin)[0]
    shutil.rmtree(tmp_path / f"node{dead}")
    for got in on_nodes(tmp_path, "01", lambda cache, rank: end(cache, rank, state)):
        assert_same(got, uninterrupted)
    for node in "01":
        reader = open_cache(tmp_path / f"node{node}")
        assert verify_generation(reader.directory, reader.manifest) == []


@pytest.mark.parametrize("after", ["0", "1", "012", "0011", "23"])
def test_other_nodes_and_ranks_on_resume(tmp_path, uninterrupted, after):
    state = on_nodes(tmp_path, "01", begin)[0]
    if after == "23":  # nobody is left, but one that was renamed
        (tmp_path / "node1").rename(tmp_path / "node3")
    for got in on_nodes(tmp_path, after, lambda cache, rank: end(cache, rank, state)):
        assert_same(got, uninterrupted)


def test_a_filled_node_is_a_cache_of_its_own(tmp_path):
    state = on_nodes(tmp_path, "01", begin)[0]
    on_nodes(tmp_path, "02", lambda cache, rank: cache.load_state_dict(state))
    left, right = (open_cache(tmp_path / f"node{node}") for node in "02")
    assert_same(contents(left), contents(right))
    assert left.manifest == right.manifest and left.manifest.generation == 1


def test_what_no_node_holds_is_named(tmp_path):
    state = on_nodes(tmp_path, "01", begin)[0]
    lost = state["in_progress"]["shards"][0]["name"]
    for node in "01":
        (tmp_path / f"node{node}" / state["in_progress"]["name"] / lost).unlink()
    with pytest.raises(ValueError, match=rf"no node holds shard {lost} .*generation 2 .*--cache-dir.*--reset-datal"):
        on_nodes(tmp_path, "01", lambda cache, rank: cache.load_state_dict(state))
    with pytest.raises(ValueError, match=r"needs generation 1 .*--cache-dir.*--reset-dataloader"):
        on_nodes(tmp_path / "elsewhere", "01", lambda cache, rank: cache.load_state_dict(state))


@pytest.mark.parametrize("name", ["MANIFEST.json", "w0000"])
def test_a_damaged_file_is_replaced_by_that_of_another_node(tmp_path, uninterrupted, name):
    state = on_nodes(tmp_path, "01", begin)[0]
    folder = tmp_path / "node0" / state["committed"]["name"]
    path = next(path for path in folder.iterdir() if path.name.startswith(name))
    good = path.read_bytes()
    path.write_bytes(good[:-9])
    for got in on_nodes(tmp_path, "01", lambda cache, rank: end(cache, rank, state)):
        assert_same(got, uninterrupted)
    assert path.read_bytes() == good


@pytest.mark.parametrize("window", [1, 4000, 1 << 28])
def test_no_message_is_larger_than_a_chunk(tmp_path, monkeypatch, window):
    sent, plain = [], ThreadComm.broadcast_bytes

    def recorded(self, data, src):
        if self.rank == src:
            sent.append(len(data))
        plain(self, data, src)

    monkeypatch.setattr(ThreadComm, "broadcast_bytes", recorded)
    monkeypatch.setattr(exchange, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(exchange, "WINDOW_BYTES", window)
    on_nodes(tmp_path, "011", lambda cache, rank: refresh(cache, IDS[rank::3], 1))
    manifest = open_cache(tmp_path / "node1").manifest
    assert max(sent) == 1000 and sum(sent) == sum(entry["size"] for entry in manifest.shards)  # each shard once
    del sent[:]
    on_nodes(tmp_path / "one", "000", lambda cache, rank: refresh(cache, IDS[rank::3], 1))
    assert sent == []


def test_checkpoints_that_rank_zero_sees_keep_generations_on_every_node(tmp_path):
    saves = tmp_path / "saves"
    saves.mkdir()

    def train(cache, rank):
        names = []
        for epoch in (1, 2, 3):
            refresh(cache, IDS[rank::2], epoch)
            names.append(cache.reader.manifest.name)
            if rank == 0 and epoch == 1:
                torch.save(cache.state_dict(), saves / "checkpoint1.pt")
        return names, cache.delete_superseded()

    def run(rank, comm):
        folder = str(saves) if rank == 0 else ""
        return train(node_cache(tmp_path, rank, comm, "01", checkpoint_folder=folder), rank)

    for names, deleted in on_ranks(2, run):
        assert deleted == [names[1]]
    for node in "01":
        assert sorted(path.name for path in (tmp_path / f"node{node}").glob("gen-*")) == [names[0], names[2]]


def test_over_gloo(tmp_path, uninterrupted):
    words = [sys.executable, "-m", "tests.unit.cache.on_gloo", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert max(told["sizes"]) == CHUNK and sum(told["sizes"]) == told["shards"]  # each shard once
    for node in "01":
        assert_same(contents(open_cache(tmp_path / f"node{node}")), uninterrupted)
