"""``fairseq-train`` inside this process, update by update: for benchmarks and tests that look at each."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence


class Training(NamedTuple):
    """What ``fairseq-train`` builds before its first update."""

    cfg: Any
    task: Any
    model: Any
    criterion: Any
    trainer: Any


def build_trainer(args: Sequence[object]) -> Training:
    """Do in this process what ``fairseq-train ARGS`` does up to its first update, resuming a checkpoint included."""
    import fairseq_adv

    fairseq_adv.register()

    import numpy as np
    from fairseq import checkpoint_utils, options, tasks, utils
    from fairseq.dataclass.initialize import add_defaults
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.logging import metrics
    from fairseq.trainer import Trainer

    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, input_args=[str(word) for word in args]))
    add_defaults(cfg)
    metrics.reset()
    vars(checkpoint_utils.save_checkpoint).pop("best", None)  # state of an earlier run in this process
    np.random.seed(cfg.common.seed)
    utils.set_torch_seed(cfg.common.seed)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    criterion = task.build_criterion(cfg.criterion)
    for subset in cfg.dataset.valid_subset.split(","):
        task.load_dataset(subset, combine=False, epoch=1)
    trainer = Trainer(cfg, task, model, criterion)
    _, trainer.epoch_itr = checkpoint_utils.load_checkpoint(cfg.checkpoint, trainer)
    return Training(cfg, task, model, criterion, trainer)


def epoch_batches(trainer: Any, epoch: int) -> Iterator[List[Dict[str, Any]]]:
    """Start *epoch* and yield what ``trainer.train_step`` takes for each update: a list of ``--update-freq`` batches.

    Epochs must come in order, the first being the one that :func:`build_trainer` resumed at.
    """
    from fairseq.data import iterators

    cfg = trainer.cfg
    if trainer.epoch_itr.iterations_in_epoch > 0 and trainer.epoch_itr.next_epoch_idx > trainer.epoch_itr.epoch:
        trainer.epoch_itr = trainer.get_train_iterator(epoch, load_dataset=False)
    epoch_itr = trainer.epoch_itr
    assert epoch_itr.next_epoch_idx == epoch, f"epoch {epoch_itr.next_epoch_idx} comes next, not {epoch}"
    batches = epoch_itr.next_epoch_itr(shuffle=epoch > cfg.dataset.curriculum)
    frequencies = cfg.optimization.update_freq
    grouped = iterators.GroupedIterator(batches, frequencies[min(epoch, len(frequencies)) - 1])
    trainer.begin_epoch(epoch)
    yield from grouped


def save_checkpoint(trainer: Any, val_loss: Optional[float] = None) -> Optional[str]:
    """Write ``checkpoint_last.pt`` (and what else the options say) as fairseq does after a validation; its path."""
    from fairseq import checkpoint_utils

    return checkpoint_utils.save_checkpoint(trainer.cfg.checkpoint, trainer, trainer.epoch_itr, val_loss)
