"""Distributed data parallel on CPUs, its gathered lists, and gradients after an exception."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
import torch
import torch.distributed as dist

from fairseq_adv import compat
from fairseq_adv.compat.patch import resolve
from tests.unit.compat.unpatched import unpatched

NO_SYNC = "fairseq.distributed.legacy_distributed_data_parallel.LegacyDistributedDataParallel.no_sync"


@pytest.mark.parametrize(("no_sync", "stays_off"), [(resolve, False), (lambda _: None, True)])
def test_legacy_ddp_reduces_gradients_again_after_an_exception(no_sync, stays_off) -> None:
    wrapper = SimpleNamespace(accumulate_grads=False)
    theirs = resolve(NO_SYNC).__wrapped__
    with pytest.raises(MemoryError), (no_sync(NO_SYNC) or theirs)(wrapper):
        assert wrapper.accumulate_grads
        raise MemoryError
    assert wrapper.accumulate_grads == stays_off


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[Any]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_pytorch_ddp_wraps_a_model_on_the_cpu(process_group: Any) -> None:
    from fairseq.models import distributed_fairseq_model

    wrap = distributed_fairseq_model.DistributedDataParallel
    model = wrap(module=torch.nn.Linear(2, 2), device_ids=[0], output_device=0, process_group=process_group)
    assert isinstance(model, torch.nn.parallel.DistributedDataParallel) and model.device_ids is None
    with pytest.raises(ValueError, match="device_ids"):
        inspect.unwrap(wrap)(module=torch.nn.Linear(2, 2), device_ids=[0], output_device=0, process_group=process_group)


def test_models_on_a_gpu_keep_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = SimpleNamespace(seen={})
    make = compat.torchrun.wrap_cpu_models.function
    wrap = make(lambda **kwargs: wrapper.seen.update(kwargs))
    wrap(module=torch.nn.Linear(2, 2, device="meta"), device_ids=[3], output_device=3)
    assert (wrapper.seen["device_ids"], wrapper.seen["output_device"]) == ([3], 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="fairseq's own buffer works with a GPU")
def test_lists_are_gathered_without_a_gpu(process_group: Any) -> None:
    from fairseq.distributed import utils as distributed_utils

    for data in ([{"loss": torch.ones(2)}, "words"], ["x" * 20_000]):  # the second needs a larger buffer
        (gathered,) = distributed_utils.all_gather_list(data, group=process_group, max_size=32_768)
        assert str(gathered) == str(data)
    vars(distributed_utils.all_gather_list).pop("_buffer")
    with pytest.raises((TypeError, RuntimeError), match=r"(?i)cuda"):
        unpatched("fairseq.distributed.utils.all_gather_list")(["x"], group=process_group)
