"""State of all ranks never travels through the group of the gradients, which on a GPU would fill its memory."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from fairseq_adv.criterions.frame import gathering
from tests.integration.running import free_port


@pytest.fixture
def groups_made(monkeypatch):
    """A process that believes in a second rank and in NCCL, and the backends of the groups that it asks for."""
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{free_port()}", rank=0, world_size=1)
    made = []

    def new_group(ranks=None, backend=None):
        made.append(backend)
        return backend

    monkeypatch.setattr(dist, "get_backend", lambda group=None: "nccl")
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
    monkeypatch.setattr(dist, "new_group", new_group)
    gathering._cpu_group.cache_clear()
    yield made
    gathering._cpu_group.cache_clear()
    monkeypatch.undo()
    dist.destroy_process_group()


def test_delay_lines_travel_over_gloo(groups_made, monkeypatch):
    used = []

    def gather_object(state, gathered, dst, group=None):
        used.append(group)
        gathered[:] = [state, "other"]

    monkeypatch.setattr(dist, "gather_object", gather_object)
    for _ in range(2):
        assert gathering.gather_on_first_rank("mine") == ["mine", "other"]
    assert used == ["gloo", "gloo"] and groups_made == ["gloo"]
