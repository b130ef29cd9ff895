"""fairseq's own commands with ``--user-dir fairseq_adv`` and no method of ours: train, resume, generate, torchrun."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import pytest
import torch

import fairseq_adv
from tests.integration.running import USER_DIR, Run, command_path, default_args, run_command, run_fairseq_train

BACKENDS = ("legacy_ddp", "no_c10d", "pytorch_ddp", "c10d")
EPOCHS = 3


@pytest.fixture(scope="module")
def trained(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def uninterrupted(tiny_corpus: Path, trained: Path) -> Run:
    args = default_args(tiny_corpus, trained)
    return run_fairseq_train([*args, "--max-epoch", EPOCHS, "--tensorboard-logdir", trained / "tensorboard"])


def interrupted_losses(args: List[str], stop_at: int, nproc: int = 1) -> List[float]:
    """The losses of a run that is stopped after *stop_at* updates and started again."""
    first = run_fairseq_train([*args, "--max-epoch", EPOCHS, "--max-update", stop_at], nproc=nproc)
    rest = run_fairseq_train([*args, "--max-epoch", EPOCHS], nproc=nproc)
    assert "Loaded checkpoint" in rest.stdout
    assert len(first.column("loss")) == stop_at
    return first.column("loss") + rest.column("loss")


def test_resume_inside_the_second_epoch_goes_on_as_if_never_stopped(
    tiny_corpus: Path, uninterrupted: Run, tmp_path: Path
) -> None:
    expected = uninterrupted.column("loss")
    per_epoch = len(expected) // EPOCHS
    assert interrupted_losses(default_args(tiny_corpus, tmp_path), stop_at=per_epoch + 3) == expected


def test_generate_loads_the_checkpoint(tiny_corpus: Path, trained: Path, uninterrupted: Run) -> None:
    model = ["--path", trained / "checkpoint_last.pt", "--cpu", "--beam", 2, "--max-len-b", 5]
    data = [tiny_corpus, "--user-dir", USER_DIR, "--gen-subset", "test", "--required-batch-size-multiple", 1]
    generated = run_command([command_path("fairseq-generate"), *data, *model])
    assert sum(line.startswith("H-") for line in generated.stdout.splitlines()) == 16


def test_tensorboard_files_are_written(trained: Path, uninterrupted: Run) -> None:
    for tag in ("train_inner", "train", "valid"):
        assert list((trained / "tensorboard" / tag).glob("events.out.tfevents.*")), f"nothing logged for {tag}"


@pytest.fixture(scope="module")
def save_dirs(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    return {backend: tmp_path_factory.mktemp(backend) for backend in BACKENDS}


@pytest.fixture(scope="module")
def two_ranks(tiny_corpus: Path, save_dirs: Dict[str, Path]) -> Dict[str, Run]:
    """ddp backend -> one epoch on two ranks, started by plain torchrun."""
    return {
        backend: run_fairseq_train([*default_args(tiny_corpus, save_dir), "--ddp-backend", backend], nproc=2)
        for backend, save_dir in save_dirs.items()
    }


def test_two_ranks_train_one_job(save_dirs: Dict[str, Path], two_ranks: Dict[str, Run], uninterrupted: Run) -> None:
    updates_alone = len(uninterrupted.column("loss")) // EPOCHS
    assert len(two_ranks["legacy_ddp"].column("loss")) == (updates_alone + 1) // 2  # two batches in each update
    fairseq_adv.register()
    state = torch.load(save_dirs["legacy_ddp"] / "checkpoint_last.pt", weights_only=True)
    assert state["cfg"]["distributed_training"]["distributed_world_size"] == 2


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_every_backend_computes_the_same(two_ranks: Dict[str, Run], backend: str) -> None:
    for tag in ("train_inner", "valid"):
        expected = two_ranks["legacy_ddp"].column("loss", tag)
        assert two_ranks[backend].column("loss", tag) == pytest.approx(expected, abs=1.5e-3)  # the log has 3 digits


def test_resume_on_two_ranks(tiny_corpus: Path, tmp_path: Path) -> None:
    """Rank 0 reads the checkpoint and sends it to the other, which loads it under the same protection."""
    args = [*default_args(tiny_corpus, tmp_path / "stopped"), "--ddp-backend", "legacy_ddp"]
    whole = run_fairseq_train([*args, "--save-dir", tmp_path / "whole", "--max-epoch", EPOCHS], nproc=2)
    assert interrupted_losses(args, stop_at=8, nproc=2) == whole.column("loss")
