"""What the tasks of this package have in common: how their batches become updates.

- Batches are rebuilt for each epoch from (seed, epoch), so that a run that resumes inside an epoch sees
  exactly the batches that it would have seen.
- Data loading workers are not kept across epochs: a kept worker holds the data set of its first epoch.
- A batch counted in tokens or sentences over all ranks, and its schedule; each update logs its size beside the target.
- Criterions may ask for replays of each update's batch and for a look at the next update's batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Optional

from fairseq import utils
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from omegaconf import DictConfig, OmegaConf, open_dict

from fairseq_adv.data.batch_tokens import BatchTokensSchedule
from fairseq_adv.data.epoch_updates import UpdateEpochIterator, UpdatePlan
from fairseq_adv.data.update_groups import Replays


def set_data_loading(cfg: Any) -> None:
    """Batches anew in each epoch, and no data loading worker that outlives its epoch."""
    with open_dict(cfg):
        cfg.rebuild_batches = True
        cfg.reuse_dataloader = False
        cfg.persistent_workers = False


class PlannedUpdates(FairseqTask):
    """Mixed into a task before fairseq's own class, whose ``__init__`` ends with :meth:`plan_batches`.

    The batch is counted in the unit of the schedule, in tokens from the column ``ntokens`` of the logs, in sentences
    from ``nsentences``.
    """

    batch_tokens: Optional[BatchTokensSchedule]
    counted_column = "ntokens"

    def plan_batches(self, schedule: Optional[BatchTokensSchedule]) -> None:
        """Count batches as *schedule* says, or in ``--update-freq`` micro-batches."""
        self.batch_tokens = schedule
        self._replays = Replays()
        self._looks_ahead, self._spares = 0, False
        self._trainer: Any = None
        self._epoch_iterator: Optional[UpdateEpochIterator] = None

    # ---- what criterions ask for, before the first epoch --------------------------------------------------

    def replay_updates(self, count: int, start: int = 0) -> None:
        """Let each group of micro-batches make *count* updates in a row, from update *start* on."""
        self._replays = Replays(count, start)

    def look_ahead(self, updates: int = 1, spare_ranks: bool = False) -> None:
        """Have :meth:`upcoming_batches` tell the micro-batches of the update after *updates* more.

        With *spare_ranks* the first half of the ranks shares the training data, and each rank of the second half is
        told what the rank is told that trains in its place in the first half.
        """
        self._looks_ahead, self._spares = updates, spare_ranks

    def upcoming_batches(self) -> List[Dict[str, Any]]:
        """The micro-batches of the update that is looked ahead for, as collated, on the CPU; none at an epoch's end.

        The list is the same object as long as the present update (or a retry of it) lasts.
        """
        return [] if self._epoch_iterator is None else self._epoch_iterator.upcoming

    def present_size(self) -> int:
        """How many micro-batches this rank has in the present update, dummy batches included."""
        return 1 if self._epoch_iterator is None else self._epoch_iterator.present_size

    # ---- what fairseq calls -------------------------------------------------------------------------------

    def after_load_checkpoint(self, trainer: Any, extra_state: Optional[Dict[str, Any]], reset: bool) -> None:
        """Every rank, before training starts: the trainer knows the number of updates."""
        self._trainer = trainer

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        idle = self._spares and dataset is self._training_set() and self._deal_to_first_half(kwargs)
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        if dataset is not self._training_set() or isinstance(iterator, UpdateEpochIterator):
            return iterator
        plan = replace(self._update_plan(dataset), idle=idle)
        self._epoch_iterator = UpdateEpochIterator.adopting(iterator, plan, self._num_updates)
        if dataset in self.dataset_to_epoch_iter:
            self.dataset_to_epoch_iter[dataset] = self._epoch_iterator
        return self._epoch_iterator

    @staticmethod
    def _deal_to_first_half(options: Dict[str, Any]) -> bool:
        """Let half as many ranks share the data; whether this rank is one of the others."""
        ranks, rank = options.get("num_shards", 1), options.get("shard_id", 0)
        if ranks % 2:
            raise ValueError(
                f"--conadv-placement spare needs an even number of ranks, half of them to perturb, got {ranks}: train "
                "on another number, or with --conadv-placement same"
            )
        options.update(num_shards=ranks // 2, shard_id=rank % (ranks // 2))
        return rank >= ranks // 2

    def reduce_metrics(self, logging_outputs: List[Dict[str, Any]], criterion: Any) -> None:
        super().reduce_metrics(logging_outputs, criterion)
        if self.batch_tokens is None or not criterion.training:
            return
        amount = utils.item(sum(log.get(self.counted_column, 0) for log in logging_outputs))
        finished = max(1, self._num_updates())  # the update that is being logged counts as finished
        column = self.batch_tokens.unit.column
        metrics.log_scalar(column, amount, priority=190, round=1)
        metrics.log_scalar(f"{column}_target", self.batch_tokens.at(finished - 1), priority=191, round=1)

    def _num_updates(self) -> int:
        return 0 if self._trainer is None else self._trainer.get_num_updates()

    def _training_set(self) -> Any:
        return self.datasets.get(self._option("dataset.train_subset", "train"))

    def _update_plan(self, dataset: Any) -> UpdatePlan:
        frequency = list(self._option("optimization.update_freq", [1]))
        plan = UpdatePlan(self.batch_tokens, frequency, self._replays, self._looks_ahead)
        if plan.is_needed:
            self._refuse_shared_subset()
        if self.batch_tokens is not None:
            self._refuse_two_ways_of_counting(self.batch_tokens, frequency)
            self.check_countable(dataset)
        return plan

    def check_countable(self, dataset: Any) -> None:
        """Raise ``ValueError`` for training data whose batches cannot be counted in the unit."""

    def _refuse_shared_subset(self) -> None:
        train = self._option("dataset.train_subset", "train")
        if train in str(self._option("dataset.valid_subset", "valid")).split(","):
            raise ValueError(
                f"--valid-subset names the training data {train!r}, whose batches are cut into updates: "
                "copy the sentences to validate on into a subset of their own (or, with fairseq-validate, which trains "
                "nothing, give --train-subset none)"
            )

    @staticmethod
    def _refuse_two_ways_of_counting(schedule: BatchTokensSchedule, frequency: List[int]) -> None:
        if frequency != [1]:
            unit = schedule.unit
            raise ValueError(
                f"--update-freq {','.join(map(str, frequency))} and a batch counted in {unit.name} ({unit.target} "
                f"or {unit.schedule}) both say how many micro-batches make an update: drop one"
            )

    def _option(self, name: str, default: Any) -> Any:
        """An option of another part of fairseq's configuration, where the task has been set up with all of it."""
        if not isinstance(self.cfg, DictConfig):
            return default
        value = OmegaConf.select(self.cfg._get_root(), name)
        return default if value is None else value
