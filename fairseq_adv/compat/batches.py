"""Resuming inside an epoch with the batches of the run that was interrupted."""

from __future__ import annotations

from typing import Any, Callable

from fairseq_adv.compat.patch import replaces


@replaces("fairseq.tasks.fairseq_task.FairseqTask.get_batch_iterator")
def keep_batches_on_resume(original: Callable[..., Any]) -> Callable[..., Any]:
    """A run that resumes at epoch 2 or later sees the same batches as a run that was never interrupted.

    Fairseq groups sentences of equal length at random, seeded by the epoch in which the iterator is created, and
    keeps the iterator for all epochs: epoch 1 without a resume, the epoch of the checkpoint after one. The
    resumed run then serves some sentences of the epoch twice and others never. Here an iterator that is kept for
    all epochs always starts from the grouping of epoch 1; uninterrupted runs do not change. Tasks that
    rebuild their batches in each epoch (``rebuild_batches``) or have their own iterator are left alone.
    """

    def get_batch_iterator(self: Any, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        epoch = kwargs.get("epoch", 1)
        keeps_iterator = (
            not kwargs.get("disable_iterator_cache", False)
            and not kwargs.get("update_epoch_batch_itr", False)
            and not getattr(self.cfg, "rebuild_batches", False)
            and self.can_reuse_epoch_itr(dataset)
        )
        if epoch <= 1 or not keeps_iterator or dataset in self.dataset_to_epoch_iter:
            return original(self, dataset, *args, **kwargs)
        iterator = original(self, dataset, *args, **{**kwargs, "epoch": 1})
        iterator.epoch = epoch
        dataset.set_epoch(epoch)
        return iterator

    return get_batch_iterator
