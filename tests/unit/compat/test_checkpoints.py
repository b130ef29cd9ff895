"""Checkpoints of fairseq load, resume and are told of; each repair is broken without its patch."""

from __future__ import annotations

import argparse
import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List

import numpy as np
import pytest
import torch

from tests.integration.running import build_trainer, default_args, epoch_batches, save_checkpoint
from tests.unit.compat.unpatched import unpatched


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
