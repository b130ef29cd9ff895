"""Checkpoints: loading them under torch's ``weights_only`` protection, and telling the task on every rank."""

from __future__ import annotations

import importlib
import os
from typing import Any, Callable, List, Tuple

import torch

from fairseq_adv.compat.patch import patch, replaces

# What fairseq pickles beside tensors, plain containers and numbers. All are passive data holders.
_SAFE_NAMES = (
    "argparse.Namespace",  # cfg.model of every `--arch`
    "fairseq.distributed.utils._TensorPlaceholder",  # a resume on several ranks
)


def _safe_globals() -> List[Any]:
    found = []
    for dotted in _SAFE_NAMES:
        module_name, _, name = dotted.rpartition(".")
        try:
            found.append(getattr(importlib.import_module(module_name), name))
        except (ImportError, AttributeError):
            continue  # this version of the library has no such class, so its checkpoints have none either
    return found


@patch("torch.serialization.add_safe_globals")
def load_own_checkpoints() -> None:
    """torch >= 2.6 loads fairseq's checkpoints with ``weights_only`` still on.

    ``fairseq.checkpoint_utils.load_checkpoint_to_cpu`` and ``fairseq.distributed.utils.broadcast_object`` call
    ``torch.load`` with its default, which since 2.6 refuses every class that is not registered: resuming,
    ``fairseq-generate`` and ``fairseq-interactive`` fail. The classes that fairseq stores are
    registered; the protection against anything else stays.
    """
    add_safe_globals = getattr(torch.serialization, "add_safe_globals", None)
    if add_safe_globals is not None:  # torch < 2.4 has neither the list nor the new default
        add_safe_globals(_safe_globals())


@replaces("fairseq.checkpoint_utils.save_checkpoint")
def call_task_before_save(original: Callable[..., Any]) -> Callable[..., Any]:
    """``task.before_save_checkpoint(trainer, epoch_itr)`` is called on every rank before a checkpoint is written.

    Fairseq asks the task for its state on rank 0 alone, too late for what needs all ranks. The best validation
    score, which fairseq keeps as an attribute of this function, stays reachable under its name.
    """

    def save_checkpoint(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
        hook = getattr(trainer.task, "before_save_checkpoint", None)
        if callable(hook) and not cfg.no_save:
            hook(trainer, epoch_itr)
        return original(cfg, trainer, epoch_itr, val_loss)

    return save_checkpoint


@replaces("fairseq.checkpoint_utils.load_checkpoint")
def call_task_after_load(original: Callable[..., Any]) -> Callable[..., Any]:
    """``task.after_load_checkpoint(trainer, extra_state, reset)`` is called on every rank before training starts.

    Fairseq tells a task about a checkpoint only if there is one. *extra_state* is ``None`` without one; *reset*
    is True if training starts at epoch 1 whatever was loaded (``--reset-dataloader``, or the first launch with
    ``--finetune-from-model``).
    """

    def load_checkpoint(cfg: Any, trainer: Any, **kwargs: Any) -> Tuple[Any, Any]:
        reset = bool(cfg.reset_dataloader) or _is_first_finetuning(cfg, trainer)
        extra_state, epoch_itr = original(cfg, trainer, **kwargs)
        hook = getattr(trainer.task, "after_load_checkpoint", None)
        if callable(hook):
            hook(trainer, extra_state, reset)
        return extra_state, epoch_itr

    return load_checkpoint


def _is_first_finetuning(cfg: Any, trainer: Any) -> bool:
    """Whether fairseq will load the model of another run (``load_checkpoint`` decides likewise)."""
    if getattr(cfg, "finetune_from_model", None) is None or cfg.restore_file != "checkpoint_last.pt":
        return False
    last = os.path.join(cfg.save_dir, f"checkpoint_last{trainer.checkpoint_suffix}.pt")
    return not os.path.exists(last) and getattr(cfg, "continue_once", None) is None
