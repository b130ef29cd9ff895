"""An epoch as a sequence of updates, each a group of micro-batches: batches in tokens, replays, looking ahead.

Fairseq deals micro-batches to ranks first and groups them afterwards: ``fairseq_cli.train`` wraps the epoch's
iterator in ``GroupedIterator(iterator, update_freq)``, whose groups all have the same size. Here the groups come
first, so the iterator itself yields what ``Trainer.train_step`` takes, a list of micro-batches, and a repair in
``compat`` lets ``GroupedIterator`` hand such an iterator through. Everything else is fairseq's own: its data
loader and buffer, its shuffling, its dummy batch for a rank without data, and its checkpoint of the position,
which here counts updates. Fairseq's count of micro-batches could not tell a replay from the next group.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Sequence

import numpy as np
from fairseq.data import data_utils
from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from fairseq_adv.data.batch_tokens import SENTENCES, BatchTokensSchedule, BatchUnit, plan_updates
from fairseq_adv.data.update_groups import Replays, locate_update

logger = logging.getLogger(__name__)

Sample = Dict[str, Any]  # a collated micro-batch; empty where a rank has none
Group = List[List[int]]  # the sentences of each micro-batch of one update on one rank

_FIRST_UPDATE = "first_update"  # in a checkpoint: the number of updates finished before the epoch


@dataclass(frozen=True)
class UpdatePlan:
    """How epochs are cut: the batch by update (``None``: ``update_freq`` micro-batches), replays, look-ahead.

    ``look_ahead`` is how many updates ahead a group is told. An ``idle`` rank trains nothing, and only looks ahead.
    """

    tokens: Optional[BatchTokensSchedule] = None
    update_freq: Sequence[int] = (1,)  # by epoch, the last one holds for the rest
    replays: Replays = field(default_factory=Replays)
    look_ahead: int = 0
    idle: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether fairseq's own grouping would not do."""
        return self.tokens is not None or self.replays.count > 1 or self.look_ahead > 0


class UpdateIterator(CountingIterator):
    """The updates of one epoch on one rank: lists of micro-batches, each group ``replays[group]`` times in a row.

    ``n`` and ``len`` count updates. ``present_size`` is the number of micro-batches of the present group, and
    ``upcoming`` holds those of the group *look_ahead* groups after it; it is empty at the end of the epoch, and a new
    list for each group. With *idle* each update is an empty micro-batch, for which fairseq puts a dummy batch.
    """

    own_groups = True  # what compat's repair of GroupedIterator asks for

    def __init__(
        self,
        micro_batches: Iterator[Sample],
        sizes: Sequence[int],
        replays: Sequence[int],
        start: int = 0,
        look_ahead: int = 0,
        idle: bool = False,
    ) -> None:
        """*micro_batches* begin with the group of update *start*; *sizes* and *replays* are the whole epoch's."""
        self.present_size = 0
        self.upcoming: List[Sample] = []
        self._look_ahead, self._idle = look_ahead, idle
        group, replay = locate_update(replays, start)
        groups = (list(itertools.islice(micro_batches, size)) for size in sizes[group:])
        super().__init__(self._updates(groups, replays[group:], replay), start=start, total=sum(replays))

    def _updates(self, groups: Iterator[List[Sample]], replays: Sequence[int], replay: int) -> Iterator[List[Sample]]:
        following: Deque[List[Sample]] = deque()
        for count in replays:
            present = following.popleft() if following else next(groups)
            while len(following) < self._look_ahead:
                following.append(next(groups, []))
            self.upcoming = following[-1] if following else []
            self.present_size = 1 if self._idle else len(present)
            for _ in range(replay, count):
                yield [{}] if self._idle else present
            replay = 0


class UpdateEpochIterator(EpochBatchIterator):
    """Fairseq's epoch iterator with updates cut by an :class:`UpdatePlan`; without need for one it changes nothing.

    *num_updates* tells how many updates are finished; it is asked when an epoch begins, since schedules count
    updates of the whole training. *dataset* must have ``tgt_sizes`` if the plan counts tokens.
    """

    def __init__(
        self, *args: Any, plan: UpdatePlan, num_updates: Callable[[], int], skip_remainder_batch: bool, **kwargs: Any
    ) -> None:
        own = plan.is_needed
        super().__init__(*args, skip_remainder_batch=skip_remainder_batch and not own, **kwargs)
        self.plan = plan
        self._num_updates = num_updates
        self._drop_remainder = skip_remainder_batch
        self._first_update = 0
        self._groups: List[Group] = []
        if plan.tokens is not None and self.grouped_shuffling:
            raise ValueError(
                "--grouped-shuffling makes the batches depend on the number of ranks, but batches counted in "
                f"{plan.tokens.unit.name} are the same on any number: drop it"
            )

    @classmethod
    def adopting(cls, other: EpochBatchIterator, plan: UpdatePlan, num_updates: Callable[[], int]) -> Any:
        """An iterator over what *other* iterates over, at the epoch that it is in."""
        same = """dataset collate_fn batch_sampler seed num_shards shard_id num_workers epoch buffer_size timeout
            disable_shuffling skip_remainder_batch grouped_shuffling reuse_dataloader persistent_workers"""
        return cls(plan=plan, num_updates=num_updates, **{name: getattr(other, name) for name in same.split()})

    @property
    def upcoming(self) -> List[Sample]:
        """The micro-batches of the group after the present one; see :class:`UpdateIterator`."""
        return getattr(self._cur_epoch_itr, "upcoming", [])

    @property
    def present_size(self) -> int:
        """How many micro-batches this rank has in the present update."""
        return getattr(self._cur_epoch_itr, "present_size", 1)

    def next_epoch_itr(self, *args: Any, **kwargs: Any) -> Any:
        if self._next_epoch_itr is None:
            self._first_update = self._num_updates()
        return super().next_epoch_itr(*args, **kwargs)

    def state_dict(self) -> Dict[str, Any]:
        state = super().state_dict()
        if self.plan.is_needed:
            state[_FIRST_UPDATE] = self._first_update
            state.pop("num_shards", None)  # the position counts groups, not a rank's batches: nothing to convert
        return state

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        inside, counts_updates = state_dict.get("iterations_in_epoch", 0) > 0, _FIRST_UPDATE in state_dict
        if inside and counts_updates != self.plan.is_needed:
            raise ValueError(
                f"the checkpoint lies inside an epoch that was cut {'by' if counts_updates else 'without'} "
                "a batch counted over all ranks (--target-batch-tokens, --target-batch-sentences or a schedule) or a "
                "criterion that replays batches or looks ahead, "
                f"and this run is started {'without' if counts_updates else 'with'}: go on with the old options up to "
                "the end of the epoch, or start the epochs anew with --reset-dataloader"
            )
        self._first_update = state_dict.get(_FIRST_UPDATE, 0)
        super().load_state_dict(state_dict)

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> Any:
        if not self.plan.is_needed:
            return super()._get_iterator_for_epoch(epoch, shuffle, fix_batches_to_gpus, offset)
        self._groups = self._cut(epoch, fix_batches_to_gpus, shuffle)
        sizes = [len(group) for group in self._groups]
        replays = self.plan.replays.of_groups(len(sizes), self._first_update)
        consumed = sum(sizes[: locate_update(replays, offset)[0]])
        micro_batches = super()._get_iterator_for_epoch(epoch, shuffle, fix_batches_to_gpus, consumed)
        if micro_batches is None:  # fairseq turns this into its error for a checkpoint of other data
            return None
        return UpdateIterator(micro_batches, sizes, replays, offset, self.plan.look_ahead, self.plan.idle)

    def ordered_batches(self, epoch: int, fix_batches_to_gpus: bool, shuffle: bool) -> Sequence[List[int]]:
        """The micro-batches of this rank in the order in which the data loader shall read them."""
        if not self.plan.is_needed:
            return super().ordered_batches(epoch, fix_batches_to_gpus, shuffle)
        return [batch for group in self._groups for batch in group]

    def _cut(self, epoch: int, fix_batches_to_gpus: bool, shuffle: bool) -> List[Group]:
        if self.plan.tokens is not None:
            return self._cut_by_tokens(self.plan.tokens, epoch, shuffle)
        batches = list(super().ordered_batches(epoch, fix_batches_to_gpus, shuffle))
        size = self.plan.update_freq[min(epoch, len(self.plan.update_freq)) - 1]
        if self._drop_remainder:  # as fairseq: the last batch, then the last group if it is not full
            batches = batches[: (len(batches) - 1) // size * size]
        chunks = [batches[i : i + size] for i in range(0, len(batches), size)]
        # a filler counts as a dummy batch only where the rank has no other: fairseq would leave out its whole group
        return [[batch for batch in chunk if len(batch) > 0] or [[]] for chunk in chunks]

    def _cut_by_tokens(self, schedule: BatchTokensSchedule, epoch: int, shuffle: bool) -> List[Group]:
        batches = list(self.frozen_batches)
        if shuffle:
            with data_utils.numpy_seed(self.seed + epoch):
                np.random.shuffle(batches)
        tokens = [self._amount(batch, schedule.unit) for batch in batches]
        self._refuse_later_targets_that_are_too_small(schedule, tokens)
        in_groups = self.plan.replays.in_groups(schedule, self._first_update)
        plan = plan_updates(tokens, self.num_shards, in_groups, skip_remainder=self._drop_remainder)
        logger.info(
            "epoch %d: %d micro-batches of %d %s in %d groups for %d ranks",
            epoch,
            len(batches),
            sum(tokens),
            schedule.unit.name,
            len(plan),
            self.num_shards,
        )
        return [[list(batches[index]) for index in update[self.shard_id]] or [[]] for update in plan]

    def _amount(self, batch: Sequence[int], unit: BatchUnit) -> int:
        return len(batch) if unit == SENTENCES else int(np.asarray(self.dataset.tgt_sizes)[np.asarray(batch)].sum())

    def _refuse_later_targets_that_are_too_small(self, schedule: BatchTokensSchedule, tokens: List[int]) -> None:
        """Fail now rather than at the update at which a schedule reaches a target below one micro-batch."""
        present = schedule.at(self._first_update)
        later = [t for update, t in zip(schedule.updates, schedule.tokens) if update > self._first_update]
        if tokens:
            smallest = BatchTokensSchedule((0,), (min([present, *later]),), schedule.unit)
            plan_updates([max(tokens)], 1, smallest)
