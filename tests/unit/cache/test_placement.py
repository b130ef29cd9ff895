"""Which ranks see one directory, and what must be right in all of them before anything is cached."""

from __future__ import annotations

import os
import threading
from typing import Dict

import pytest

from fairseq_adv.cache import PerturbationCache, placement
from fairseq_adv.cache.placement import find_places
from tests.unit.cache.caches import on_ranks, open_for_writing, spec


def places_of(directories, kind="node-local"):
    """What each rank finds; ``directories[r]`` is what rank r calls the directory."""
    size = len(directories)
    return on_ranks(size, lambda rank, comm: find_places(comm, rank, size, str(directories[rank]), kind))


@pytest.mark.parametrize("nodes", ["aabb", "abab", "abc", "aaaa"])
def test_ranks_that_see_one_directory_are_one_place(tmp_path, nodes):
    found = places_of([tmp_path / node for node in nodes])
    keepers = [nodes.index(node) for node in nodes]
    for rank, places in enumerate(found):
        assert places.keepers == sorted(set(keepers)) and places.is_keeper == (keepers[rank] == rank)
        assert places.several == (len(set(nodes)) > 1)
    assert all(not os.listdir(tmp_path / node) for node in nodes)


def test_a_directory_may_have_another_name_on_each_rank(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert [places.keepers for places in places_of([tmp_path / "real", tmp_path / "link"])] == [[0], [0]]
    shared = places_of([tmp_path / "real", tmp_path / "link"], "shared")
    assert [places.is_keeper for places in shared] == [True, False]


def test_a_shared_directory_may_show_a_file_late(tmp_path):
    (tmp_path / "real").mkdir()
    timer = threading.Timer(0.4, lambda: (tmp_path / "late").symlink_to("real"))
    timer.start()
    found = places_of([tmp_path / "real", tmp_path / "late"], "shared")
    timer.join()
    assert [places.keepers for places in found] == [[0], [0]]


def test_shared_placement_of_separate_directories_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "PROBE_SECONDS", 0.2)

    def start(rank, comm):
        return open_for_writing(tmp_path / f"node{rank}", rank=rank, world_size=2, comm=comm)

    errors = on_ranks(2, start)
    assert all(isinstance(error, ValueError) for error in errors) and str(errors[0]) == str(errors[1])
    assert "rank 1 on " in str(errors[0]) and "--cache-placement node-local" in str(errors[0])
    assert os.listdir(tmp_path / "node0") == [] and not (tmp_path / "node1").exists()


def test_ranks_that_do_not_agree_are_refused(tmp_path, monkeypatch):
    seen: Dict[threading.Thread, int] = {}
    monkeypatch.setattr(placement, "_lowest_seen", lambda probe, world_size: seen[threading.current_thread()])

    def start(rank, comm):
        seen[threading.current_thread()] = [0, 0, 1][rank]
        return find_places(comm, rank, 3, str(tmp_path), "node-local")

    errors = on_ranks(3, start)
    assert all("ranks 2 and 1 do not agree" in str(error) for error in errors)


def test_an_unknown_placement_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--cache-placement must be one of shared, node-local, got 'both'"):
        open_for_writing(tmp_path, placement="both")


def test_a_place_that_cannot_be_opened_stops_all_and_leaves_the_others_free(tmp_path):
    held = open_for_writing(tmp_path / "node1", run_id="another")
    assert held._owner is not None
    held._owner.token, token = "alive elsewhere", held._owner.token
    owner = tmp_path / "node1" / "OWNER"
    owner.write_text(owner.read_text().replace(f'"pid": {os.getpid()}', '"pid": 1').replace('"started"', '"x"'))

    def start(rank, comm, **options):
        return open_for_writing(
            tmp_path / f"node{rank}", rank=rank, world_size=2, comm=comm, placement="node-local", **options
        )

    errors = on_ranks(2, start)
    assert str(errors[0]) == str(errors[1]) and "rank 1: " in str(errors[0])
    assert "in use by run another" in str(errors[0]) and not (tmp_path / "node0" / "OWNER").exists()
    assert token in owner.read_text()
    owner.unlink()
    errors = on_ranks(2, lambda rank, comm: start(rank, comm, expected_bytes=rank * 10**18))
    assert "node1 has " in str(errors[0]) and "--cache-proportion" in str(errors[1])
    assert not list(tmp_path.glob("*/OWNER"))


def test_nodes_with_other_data_are_refused_with_the_field(tmp_path):
    def start(rank, comm):
        own = spec(**{"data.num_samples": 100 + rank})
        options = dict(rank=rank, world_size=2, comm=comm, placement="node-local")
        return PerturbationCache(str(tmp_path / f"node{rank}"), own, ema=0.1, run_id="run", **options)

    for error in on_ranks(2, start):
        assert "rank 1 has other data or options than rank 0 (data.num_samples: 100 -> 101)" in str(error)
    assert not list(tmp_path.glob("*/*"))
