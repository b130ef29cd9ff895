"""Each repair of fairseq does its work, and what it repairs is broken without it."""

from __future__ import annotations

import argparse
import inspect
import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import pytest
import torch
import torch.distributed as dist

import fairseq_adv
from fairseq_adv import compat
from fairseq_adv.compat.patch import _MARK, resolve
from tests.integration.running import build_trainer, default_args, epoch_batches, save_checkpoint


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    fairseq_adv.register()


def unpatched(symbol: str) -> Callable[..., Any]:
    """fairseq's own callable behind the patched *symbol*."""
    return inspect.unwrap(resolve(symbol))


# ---- the list of patches ----------------------------------------------------------------------------------


def test_every_patch_names_its_symbol_and_its_reason() -> None:
    assert len({patch.name for patch in compat.PATCHES}) == len(compat.PATCHES)
    for patch in compat.PATCHES:
        assert patch.applied
        assert callable(resolve(patch.symbol))
        assert len(patch.reason) > 100, f"{patch.name} does not say why"
        assert "\n" not in patch.summary


def test_applying_again_changes_nothing() -> None:
    before = {patch.symbol: resolve(patch.symbol) for patch in compat.PATCHES}
    compat.apply()
    for patch in compat.PATCHES:
        patch.applied = False  # as after a second import of the plugin under another name
    compat.apply()
    assert {symbol: resolve(symbol) for symbol in before} == before
    for symbol in before:
        assert not hasattr(getattr(resolve(symbol), "__wrapped__", None), _MARK), f"{symbol} is wrapped twice"


# ---- distributed training ----------------------------------------------------------------------------------

NO_SYNC = "fairseq.distributed.legacy_distributed_data_parallel.LegacyDistributedDataParallel.no_sync"


@pytest.mark.parametrize(("no_sync", "stays_off"), [(resolve, False), (lambda _: None, True)])
def test_legacy_ddp_reduces_gradients_again_after_an_exception(no_sync, stays_off) -> None:
    wrapper = SimpleNamespace(accumulate_grads=False)
    theirs = resolve(NO_SYNC).__wrapped__
    with pytest.raises(MemoryError), (no_sync(NO_SYNC) or theirs)(wrapper):
        assert wrapper.accumulate_grads
        raise MemoryError
    assert wrapper.accumulate_grads == stays_off


# ---- checkpoints ------------------------------------------------------------------------------------------


def saved(value: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


OBJECTS = {"allow_objects": True}


def fairseq_values() -> Dict[str, Any]:
    from fairseq.distributed.utils import _TensorPlaceholder
    from fairseq.logging import meters
    from omegaconf import OmegaConf

    return {
        "options on other ranks": OmegaConf.create({"lr": [0.1], "model": argparse.Namespace(a=1)}, flags=OBJECTS),
        "options": argparse.Namespace(arch="transformer", encoder_layers=6),
        "placeholder": _TensorPlaceholder(index=3),
        "bleu counts": np.arange(4),
        "score": np.float64(27.5),
        "half": np.float16(0.5),
        "flag": np.bool_(True),
        "meter": meters.AverageMeter(round=3),
    }


@pytest.mark.skipif(not hasattr(torch.serialization, "clear_safe_globals"), reason="torch loads anything before 2.6")
@pytest.mark.parametrize("kind", list(fairseq_values()))
def test_what_fairseq_stores_is_loaded_and_only_because_of_the_patch(kind: str) -> None:
    value = fairseq_values()[kind]
    loaded = torch.load(saved(value))
    assert type(loaded) is type(value)
    comparable = vars if kind == "meter" else lambda same: same
    assert np.array_equal(comparable(loaded), comparable(value))
    known = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(pickle.UnpicklingError, match="not an allowed global"):
            torch.load(saved(value))
    finally:
        torch.serialization.add_safe_globals(known)


class Foreign:
    """A class that no checkpoint of fairseq contains."""


@pytest.mark.skipif(not hasattr(torch.serialization, "clear_safe_globals"), reason="torch loads anything before 2.6")
def test_other_classes_stay_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="Foreign"):
        torch.load(saved({"model": Foreign()}))


@pytest.mark.parametrize(
    "options",
    [
        "--optimizer adafactor --lr-scheduler inverse_sqrt --warmup-updates 4",
        "--optimizer sgd --lr-scheduler reduce_lr_on_plateau --store-ema --ema-fp32",
        "--memory-efficient-fp16 --lr-scheduler cosine --max-update 90 --report-accuracy",
        "--eval-bleu --eval-bleu-args {} --best-checkpoint-metric bleu --maximize-best-checkpoint-metric",
    ],
)
def test_checkpoints_of_common_options_resume(tiny_corpus: Path, tmp_path: Path, options: str) -> None:
    from fairseq_cli.train import validate

    args = [*default_args(tiny_corpus, tmp_path), *options.split()]
    cfg, task, _, _, trainer = build_trainer(args)
    trainer.train_step(next(epoch_batches(trainer, 1)))
    save_checkpoint(trainer, validate(cfg, trainer, task, trainer.epoch_itr, ["valid"])[0])
    assert build_trainer(args).trainer.get_num_updates() == trainer.get_num_updates()


class Hooks:
    """Records the calls that a task gets around checkpoints."""

    def __init__(self, task: Any) -> None:
        self.calls: List[Any] = []
        task.before_save_checkpoint = lambda trainer, epoch_itr: self.calls.append(("save", epoch_itr.epoch))
        task.after_load_checkpoint = self.after_load

    def after_load(self, trainer: Any, extra_state: Any, reset: bool) -> None:
        self.calls.append(("load", None if extra_state is None else extra_state["train_iterator"]["epoch"], reset))


def test_task_is_called_before_a_checkpoint_is_written(tiny_corpus: Path, tmp_path: Path) -> None:
    trainer = build_trainer(default_args(tiny_corpus, tmp_path)).trainer
    assert list(epoch_batches(trainer, 1))
    hooks, existed = Hooks(trainer.task), []
    record = trainer.task.before_save_checkpoint

    def look(*args: Any) -> None:
        existed.append(any(tmp_path.iterdir()))
        record(*args)

    trainer.task.before_save_checkpoint = look
    save_checkpoint(trainer)
    assert hooks.calls == [("save", 1)] and existed == [False]
    trainer.cfg.checkpoint.no_save = True
    save_checkpoint(trainer)
    assert hooks.calls == [("save", 1)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ("load", 2, False)),
        ("--reset-dataloader", ("load", 2, True)),
        ("--save-dir {new}", ("load", None, False)),
        ("--save-dir {new} --finetune-from-model {old}/checkpoint_last.pt", ("load", 2, True)),
        ("--finetune-from-model {old}/checkpoint_best.pt", ("load", 2, False)),
    ],
)
def test_task_is_called_after_loading(tiny_corpus: Path, tmp_path: Path, options: str, expected: Any) -> None:
    from fairseq import checkpoint_utils

    old, new = tmp_path / "old", tmp_path / "new"
    args = default_args(tiny_corpus, old)
    trainer = build_trainer(args).trainer
    assert list(epoch_batches(trainer, 1))
    save_checkpoint(trainer, 5.0)
    trainer = build_trainer([*args, *options.format(old=old, new=new).split()]).trainer
    hooks = Hooks(trainer.task)
    extra_state, _ = checkpoint_utils.load_checkpoint(trainer.cfg.checkpoint, trainer)
    assert hooks.calls == [expected]
    assert (extra_state is None) == (expected[1] is None)


def test_best_score_survives_the_wrapping(tiny_corpus: Path, tmp_path: Path) -> None:
    from fairseq import checkpoint_utils

    args = default_args(tiny_corpus, tmp_path)
    trainer = build_trainer(args).trainer
    assert list(epoch_batches(trainer, 1))
    for loss in (5.0, 4.0, 6.0):
        save_checkpoint(trainer, loss)
    assert checkpoint_utils.save_checkpoint.best == 4.0
    assert checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint_best.pt"))["extra_state"]["val_loss"] == 4
    build_trainer(args)  # forgets the score, then reads it from the checkpoint
    assert checkpoint_utils.save_checkpoint.best == 4.0


def test_a_new_training_forgets_the_one_before(tiny_corpus: Path, tmp_path: Path) -> None:
    from fairseq import checkpoint_utils
    from fairseq.logging import progress_bar
    from fairseq.trainer import Trainer
    from fairseq_cli import train

    cfg, task, model, criterion, _ = build_trainer(default_args(tiny_corpus, tmp_path))
    closed: List[bool] = []

    def remember() -> None:
        checkpoint_utils.save_checkpoint.best = train.should_stop_early.best = 1.0
        train.should_stop_early.num_runs = 2
        progress_bar._tensorboard_writers["train"] = SimpleNamespace(close=lambda: closed.append(True))

    remember()
    unpatched("fairseq.trainer.Trainer.__init__")(Trainer.__new__(Trainer), cfg, task, model, criterion)
    assert checkpoint_utils.save_checkpoint.best == 1.0 and "train" in progress_bar._tensorboard_writers
    Trainer(cfg, task, model, criterion)
    assert not {"best", "num_runs"} & {*vars(checkpoint_utils.save_checkpoint), *vars(train.should_stop_early)}
    assert closed == [True] and not progress_bar._tensorboard_writers


def test_a_death_while_a_checkpoint_is_copied_leaves_the_previous_one(tmp_path: Path, monkeypatch: Any) -> None:
    from fairseq import file_io

    def copy_half(src_path: str, dst_path: str, **_: Any) -> None:
        Path(dst_path).write_bytes(Path(src_path).read_bytes()[:3])
        raise KeyboardInterrupt

    new, last = tmp_path / "checkpoint_1_2.pt", tmp_path / "checkpoint_last.pt"
    new.write_text("second")
    last.write_text("first")
    assert file_io.PathManager.copy(str(new), str(last), overwrite=True)
    assert last.read_text() == "second" and sorted(path.name for path in tmp_path.iterdir()) == [new.name, last.name]

    new.write_text("third")
    monkeypatch.setattr(file_io, "IOPathManager", None)
    monkeypatch.setattr(file_io.shutil, "copyfile", copy_half)
    with pytest.raises(KeyboardInterrupt):
        file_io.PathManager.copy(str(new), str(last), overwrite=True)
    assert last.read_text() == "second"
    with pytest.raises(KeyboardInterrupt):
        unpatched("fairseq.file_io.PathManager.copy")(str(new), str(last), overwrite=True)
    assert last.read_text() == "thi"


# ---- resuming inside an epoch -----------------------------------------------------------------------------


def batch_ids(batches: Iterator[List[Dict[str, Any]]]) -> List[List[int]]:
    return [sample["id"].tolist() for samples in batches for sample in samples]


def all_ids(batches: List[List[int]]) -> List[int]:
    return sorted(i for batch in batches for i in batch)


def second_epoch(args: List[Any], stop_after: int) -> List[List[int]]:
    """Ids of the batches of epoch 2, with a checkpoint and a new trainer after *stop_after* of them (0: none)."""
    trainer = build_trainer([*args, "--max-epoch", 3]).trainer
    batch_ids(epoch_batches(trainer, 1))
    if stop_after == 0:
        return batch_ids(epoch_batches(trainer, 2))
    batches = epoch_batches(trainer, 2)
    seen = batch_ids(iter([next(batches) for _ in range(stop_after)]))
    save_checkpoint(trainer)
    return seen + batch_ids(epoch_batches(build_trainer([*args, "--max-epoch", 3]).trainer, 2))


def test_resumed_epoch_has_the_same_batches(tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairseq.tasks.fairseq_task import FairseqTask

    args = default_args(tiny_corpus, tmp_path / "save")
    whole = second_epoch(args, stop_after=0)
    assert all_ids(whole) == list(range(160))
    assert second_epoch(args, stop_after=4) == whole

    monkeypatch.setattr(
        FairseqTask, "get_batch_iterator", unpatched("fairseq.tasks.fairseq_task.FairseqTask.get_batch_iterator")
    )
    elsewhere = [*args, "--save-dir", tmp_path / "unpatched"]
    assert second_epoch(elsewhere, stop_after=0) == whole, "uninterrupted runs must not change"
    assert all_ids(second_epoch(elsewhere, stop_after=4)) != list(range(160))


def test_batches_that_change_in_each_epoch_resume_too(tiny_corpus: Path, tmp_path: Path) -> None:
    args = [*default_args(tiny_corpus, tmp_path), "--grouped-shuffling", "--update-ordered-indices-seed"]
    assert second_epoch(args, stop_after=4) == second_epoch([*args, "--save-dir", tmp_path / "whole"], stop_after=0)


@pytest.mark.parametrize(("before", "now", "twice"), [(1, 2, 0), (2, 1, 0), (4, 2, 0), (2, 3, 0), (1, 4, 2)])
def test_other_ranks_go_on_with_the_batches_that_are_left(before: int, now: int, twice: int) -> None:
    from fairseq.data.iterators import EpochBatchIterator

    class Numbers(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> int:
            return index

    def iterators(ranks: int) -> List[EpochBatchIterator]:
        options = dict(batch_sampler=[[index] for index in range(27)], num_shards=ranks, persistent_workers=False)
        return [EpochBatchIterator(Numbers(), list, shard_id=rank, **options) for rank in range(ranks)]

    taken, left, left_by_fairseq = [], [], []
    for iterator in iterators(before):
        batches = iterator.next_epoch_itr()
        taken += [next(batches)[0] for _ in range(6)]
        state = iterator.state_dict()
    for iterator in iterators(now):
        iterator.load_state_dict(state)
        left += [batch[0] for batch in iterator.next_epoch_itr() if batch]
        unpatched("fairseq.data.iterators.EpochBatchIterator.load_state_dict")(iterator, state)
        left_by_fairseq += [batch[0] for batch in iterator.next_epoch_itr() if batch]
    assert set(taken) | set(left) == set(range(27))
    assert len(taken) + len(left) == 27 + twice
    assert len(taken) + len(left_by_fairseq) != 27 + twice


@pytest.mark.parametrize("buffer_size", [0, 3])
def test_coming_batches_are_told_of_two_ahead(buffer_size: int) -> None:
    from fairseq.data.iterators import EpochBatchIterator

    from fairseq_adv.compat.ahead import AHEAD

    class Numbers(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> int:
            return index

    def iterator(drop: bool = False) -> EpochBatchIterator:
        options = dict(batch_sampler=[[index] for index in range(9)], buffer_size=buffer_size, persistent_workers=False)
        return EpochBatchIterator(Numbers(), list, skip_remainder_batch=drop, **options)

    told: List[List[int]] = []
    telling, plain = iterator(), iterator()
    telling.foreseer = lambda: told.append
    wanted = list(plain.next_epoch_itr())
    for number, batch in enumerate(telling.next_epoch_itr(), start=1):
        assert batch == wanted[number - 1] and told == wanted[: number + AHEAD]
        assert telling.iterations_in_epoch == number
        if number == 4:
            state = telling.state_dict()
    resumed = iterator()
    resumed.load_state_dict(state)
    resumed.foreseer = lambda: told.append  # after the checkpoint was loaded, as an epoch's criterion does
    told.clear()
    assert list(resumed.next_epoch_itr()) == wanted[4:] == told
    shorter = iterator(drop=True)
    shorter.foreseer = lambda: told.append
    assert len(list(shorter.next_epoch_itr())) == len(wanted) - 1
    unknown = unpatched("fairseq.data.iterators.EpochBatchIterator._get_iterator_for_epoch")
    told.clear()
    assert list(unknown(telling, 2, False)) and told == []


def test_a_filler_beside_batches_is_left_out() -> None:
    from fairseq.data.iterators import GroupedIterator

    shard = [{"id": 1}, {"id": 2}, {"id": 3}, {}, {}, {}]
    groups = GroupedIterator(shard, 2)
    assert len(groups) == 3 and list(groups) == [[{"id": 1}, {"id": 2}], [{"id": 3}], [{}]]
    by_fairseq = unpatched("fairseq.data.iterators._chunk_iterator")(shard, 2)
    assert list(by_fairseq)[1] == [{"id": 3}, {}]
    assert list(GroupedIterator([1.5, 2.5], 2)) == [[1.5, 2.5]]  # items of other kinds pass


# ---- torchrun ---------------------------------------------------------------------------------------------


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
