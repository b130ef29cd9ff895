"""Checkpoints: loading them under torch's ``weights_only`` protection, and telling the task on every rank."""

from __future__ import annotations

import os
from typing import Any, Callable, List, Tuple

import torch

from fairseq_adv.compat.patch import patch, replaces, resolve

# What fairseq pickles beside tensors, plain containers and numbers. All are passive: loading one runs no code.
_SAFE_CLASSES = (
    "argparse.Namespace",  # the options of every `--arch`
    "numpy.dtype",  # with the other names from numpy: the counts of `--eval-bleu`, scores as numpy scalars
    "numpy.ndarray",
    # A resume on several ranks: rank 0 reads the checkpoint, turns its options into omegaconf's containers and
    # sends all to the others, who read it with torch.load too.
    "fairseq.distributed.utils._TensorPlaceholder",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "builtins.dict",
    "builtins.int",
    "builtins.list",
    "collections.defaultdict",
    "typing.Any",
)
_METERS = ("AverageMeter", "StopwatchMeter", "SumMeter", "TimeMeter")  # whole meters, before fairseq 0.9
_ARRAY_FUNCTIONS = ("_reconstruct", "scalar")


def _safe_globals() -> List[Any]:
    """Pairs of an object and the name that a checkpoint has for it: fairseq and numpy moved some modules."""
    import numpy as np
    from fairseq.logging import meters

    pairs = [(resolve(dotted), dotted) for dotted in _SAFE_CLASSES]
    for module in ("fairseq.meters", "fairseq.logging.meters"):
        pairs += [(getattr(meters, name), f"{module}.{name}") for name in _METERS]
    numpy_core = getattr(np, "_core", None) or np.core
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        pairs += [(getattr(numpy_core.multiarray, name), f"{module}.{name}") for name in _ARRAY_FUNCTIONS]
    number_types = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdg"}  # one class for each dtype
    return pairs + [(kind, f"{kind.__module__}.{kind.__qualname__}") for kind in number_types]


@patch("torch.serialization.add_safe_globals")
def load_own_checkpoints() -> None:
    """torch >= 2.6 loads fairseq's checkpoints with ``weights_only`` still on.

    ``fairseq.checkpoint_utils.load_checkpoint_to_cpu`` and ``fairseq.distributed.utils.broadcast_object`` call
    ``torch.load`` with its default, which since 2.6 refuses every class that is not registered: resuming,
    ``fairseq-generate`` and ``fairseq-interactive`` fail. The classes that fairseq stores are
    registered; the protection against anything else stays.
    """
    if tuple(int(number) for number in torch.__version__.split(".")[:2]) >= (2, 6):
        torch.serialization.add_safe_globals(_safe_globals())


@replaces("fairseq.file_io.PathManager.copy")
def copy_checkpoints_whole(original: Callable[..., Any]) -> Callable[..., Any]:
    """A process that dies while it copies a checkpoint to ``checkpoint_last.pt`` leaves the previous one in place.

    Fairseq writes a checkpoint beside its final name and renames it, but copies it to its further names by overwriting
    them: a kill at that moment leaves a cut ``checkpoint_last.pt``, from which no restart gets going.
    """
    from fairseq.file_io import PathManager

    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if not PathManager.supports_rename(dst_path) or (os.path.exists(dst_path) and not overwrite):
            return original(src_path, dst_path, overwrite=overwrite)
        done = original(src_path, f"{dst_path}.tmp", overwrite=True)
        os.replace(f"{dst_path}.tmp", dst_path)
        return done

    return copy


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
