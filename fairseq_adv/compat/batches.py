"""Batches on several ranks: an epoch's last update, and resuming inside an epoch on the same or another number."""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, Iterator, List

from fairseq_adv.compat.patch import replaces

logger = logging.getLogger(__name__)

RANKS = "num_shards"  # in the iterator's state: how many ranks shared the batches of the epoch


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


@replaces("fairseq.data.iterators.EpochBatchIterator.state_dict")
def tell_number_of_ranks(original: Callable[..., Any]) -> Callable[..., Any]:
    """A checkpoint tells how many ranks shared the epoch's batches, without which its position says little.

    Fairseq stores how many batches one rank has taken. Checkpoints stay readable without the plugin.
    """

    def state_dict(self: Any) -> Dict[str, Any]:
        return {**original(self), RANKS: self.num_shards}

    return state_dict


@replaces("fairseq.data.iterators.EpochBatchIterator.load_state_dict")
def resume_on_other_ranks(original: Callable[..., Any]) -> Callable[..., Any]:
    """A run that resumes inside an epoch on another number of ranks goes on with the batches that are left.

    Batches are dealt in turn, and fairseq skips on each rank as many as each had taken before: with two ranks instead
    of one the second half of the epoch is never seen, with one instead of two a part of it is seen twice. The position
    is converted here; where it does not come out even, up to one batch for each rank is seen again, none is left out.
    """

    def load_state_dict(self: Any, state_dict: Dict[str, Any]) -> None:
        before, now = state_dict.get(RANKS, self.num_shards), self.num_shards
        position = state_dict.get("iterations_in_epoch", 0)
        if before != now and position > 0:
            logger.info("the checkpoint is of %d ranks, this run has %d: going on with the batches left", before, now)
            state_dict = {**state_dict, "iterations_in_epoch": position * before // now}
        original(self, state_dict)

    return load_state_dict


@replaces("fairseq.data.iterators._chunk_iterator")
def leave_out_fillers(original: Callable[..., Any]) -> Callable[..., Any]:
    """With ``--update-freq`` the last update of an epoch counts all its tokens, however many ranks share its batches.

    Ranks that run out of batches get empty ones. If such a filler ends a rank's group of batches, fairseq takes the
    whole group for a dummy: its gradient is added, but its tokens are missing in the sum that the gradient is divided
    by, and its loss in the log. Here a filler stays only where the rank has nothing else in that update.
    """

    def chunks(*args: Any, **kwargs: Any) -> Iterator[List[Any]]:
        for chunk in original(*args, **kwargs):
            yield [sample for sample in chunk if not _is_filler(sample)] or chunk[:1]

    return chunks


def _is_filler(sample: Any) -> bool:
    return sample is None or (isinstance(sample, (dict, list)) and len(sample) == 0)
