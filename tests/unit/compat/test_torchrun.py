"""torchrun on CPUs becomes one job, each rank on its device."""

from __future__ import annotations

from typing import Any, Callable, List

import pytest
import torch


def launched(monkeypatch: pytest.MonkeyPatch, **variables: Any) -> None:
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": 1, **variables}.items():
        monkeypatch.setenv(name, str(value))


def run_config(**training: Any) -> Any:
    from fairseq.dataclass.configs import FairseqConfig
    from omegaconf import OmegaConf

    cfg = OmegaConf.structured(FairseqConfig)
    OmegaConf.set_struct(cfg, False)
    cfg.optimizer = "adam"
    cfg.distributed_training.distributed_world_size = 1  # what fairseq fills in with at most one GPU
    cfg.distributed_training.update(training)
    return cfg


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> List[Any]:
    """Records the device that call_main starts training on, instead of training."""
    from fairseq.distributed import utils as distributed_utils

    devices: List[Any] = []
    monkeypatch.setattr(distributed_utils, "distributed_main", lambda device, *_: devices.append(device))
    return devices


def call_main(cfg: Any, main: Callable[..., Any] = lambda cfg: None) -> Any:
    from fairseq.distributed import utils as distributed_utils

    distributed_utils.call_main(cfg, main)
    return cfg.distributed_training


def test_torchrun_on_cpus_becomes_one_job(monkeypatch: pytest.MonkeyPatch, started: List[Any]) -> None:
    launched(monkeypatch, WORLD_SIZE=2, RANK=1, LOCAL_RANK=1)
    training = call_main(run_config())
    assert (training.distributed_world_size, training.distributed_rank) == (2, 1)
    assert training.distributed_init_method == "env://" and training.distributed_no_spawn
    assert started == [0]


def test_without_torchrun_nothing_changes(monkeypatch: pytest.MonkeyPatch, started: List[Any]) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    ran: List[Any] = []
    assert call_main(run_config(), ran.append).distributed_world_size == 1
    assert len(ran) == 1 and not started


def test_generation_under_torchrun_stays_independent(monkeypatch: pytest.MonkeyPatch, started: List[Any]) -> None:
    launched(monkeypatch, WORLD_SIZE=2, RANK=1, LOCAL_RANK=1)
    cfg = run_config()
    cfg.optimizer = None
    assert call_main(cfg).distributed_world_size == 1 and not started


@pytest.mark.parametrize(
    ("gpus", "rank", "local_rank", "device"),
    [(8, 11, 3, 3), (8, 3, 3, 3), (8, 3, 1, 1), (8, 11, None, 3), (0, 1, 1, 0), (1, 1, 0, 0)],
)
def test_device_is_the_local_rank(
    monkeypatch: pytest.MonkeyPatch, started: List[Any], gpus: int, rank: int, local_rank: Any, device: int
) -> None:
    launched(monkeypatch, WORLD_SIZE=16, RANK=rank, **({} if local_rank is None else {"LOCAL_RANK": local_rank}))
    if local_rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    training = call_main(run_config(distributed_world_size=max(1, gpus)))
    assert (training.device_id, training.distributed_world_size) == (device, 16)
    assert started == [device]


def test_spawning_without_gpus_is_an_error_instead_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    cfg = run_config(distributed_world_size=2, distributed_init_method="tcp://localhost:1")
    with pytest.raises(ValueError, match=r"--distributed-init-method tcp://localhost:1 .*torchrun --nproc_per_node 2"):
        call_main(cfg)
