"""``--task adversarial_translation``: fairseq's translation task with what only a task can change.

- Batches are rebuilt for each epoch from (seed, epoch), so that a run that resumes inside an epoch sees
  exactly the batches that it would have seen.
- Data loading workers are not kept across epochs: a kept worker holds the data set of its first epoch.
- ``--target-batch-tokens`` and ``--batch-tokens-schedule`` state the batch of an update in target tokens over
  all ranks, and each update logs ``batch_tokens`` beside ``batch_tokens_target``.
- Criterions may ask for replays of each update's batch and for a look at the next update's batch.
"""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Optional

from fairseq import utils
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import DictConfig, OmegaConf, open_dict

from fairseq_adv.data.batch_tokens import BatchTokensSchedule, batch_tokens_schedule, parse_batch_tokens
from fairseq_adv.data.epoch_updates import UpdateEpochIterator, UpdatePlan
from fairseq_adv.data.source_cutoff import cut_sources
from fairseq_adv.data.update_groups import Replays


@dataclass
class AdversarialTranslationConfig(TranslationConfig):
    """Options of fairseq's translation task, and the batch in tokens."""

    target_batch_tokens: str = field(
        default="0",
        metadata={
            "help": "target tokens that one update sees over all ranks, such as 32k or 450000 (0 means off: "
            "--update-freq micro-batches on each rank)"
        },
    )
    batch_tokens_schedule: str = field(
        default="",
        metadata={
            "help": "target tokens by update, such as 32k@0,128k@2000,400k@6000, in place of --target-batch-tokens; "
            "the default is a constant batch"
        },
    )
    adv_source_cutoff: float = field(
        default=0.0,
        metadata={
            "help": "data augmentation: probability that a source token of a training pair is replaced by the unknown "
            "symbol, drawn anew in each epoch (0 means off)"
        },
    )


@register_task("adversarial_translation", dataclass=AdversarialTranslationConfig)
class AdversarialTranslationTask(TranslationTask):
    """Translation with batches that survive a resume, counted in tokens if wanted."""

    def __init__(self, cfg: AdversarialTranslationConfig, src_dict: Any, tgt_dict: Any) -> None:
        with open_dict(cfg):
            cfg.rebuild_batches = True
            cfg.reuse_dataloader = False
            cfg.persistent_workers = False
        super().__init__(cfg, src_dict, tgt_dict)
        if not 0 <= cfg.adv_source_cutoff < 1:
            raise ValueError(f"--adv-source-cutoff must be in [0, 1), got {cfg.adv_source_cutoff}")
        self.batch_tokens = self.build_batch_tokens_schedule(cfg)
        if self.batch_tokens is not None and cfg.num_batch_buckets > 0:
            raise ValueError(
                f"--num-batch-buckets {cfg.num_batch_buckets} pads the target sentences, whose tokens can then not be "
                "counted beforehand: drop it, or set --update-freq in place of a batch counted in tokens"
            )
        self._replays = Replays()
        self._looks_ahead, self._spares = 0, False
        self._trainer: Any = None
        self._epoch_iterator: Optional[UpdateEpochIterator] = None

    @classmethod
    def build_batch_tokens_schedule(cls, cfg: Any) -> Optional[BatchTokensSchedule]:
        """Target tokens by update as *cfg* states them, ``None`` where batches are not counted in tokens.

        ``--lr-scheduler inverse_sqrt_batch`` asks for it too.
        """
        return batch_tokens_schedule(_parse_target(str(cfg.target_batch_tokens)), str(cfg.batch_tokens_schedule or ""))

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

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        super().load_dataset(split, *args, **kwargs)
        if self.cfg.adv_source_cutoff > 0 and split == self._option("dataset.train_subset", "train"):
            seed = int(self._option("common.seed", 1))
            cut_sources(
                self.datasets[split], self.cfg.adv_source_cutoff, self.src_dict.unk(), self.src_dict.eos(), seed
            )

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
        tokens = utils.item(sum(log.get("ntokens", 0) for log in logging_outputs))
        finished = max(1, self._num_updates())  # the update that is being logged counts as finished
        metrics.log_scalar("batch_tokens", tokens, priority=190, round=1)
        metrics.log_scalar("batch_tokens_target", self.batch_tokens.at(finished - 1), priority=191, round=1)

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
            self._refuse_what_miscounts_tokens(dataset, frequency)
        return plan

    def _refuse_shared_subset(self) -> None:
        train = self._option("dataset.train_subset", "train")
        if train in str(self._option("dataset.valid_subset", "valid")).split(","):
            raise ValueError(
                f"--valid-subset names the training data {train!r}, whose batches are cut into updates: "
                "copy the sentences to validate on into a subset of their own (or, with fairseq-validate, which trains "
                "nothing, give --train-subset none)"
            )

    def _refuse_what_miscounts_tokens(self, dataset: Any, frequency: List[int]) -> None:
        if frequency != [1]:
            raise ValueError(
                f"--update-freq {','.join(map(str, frequency))} and a batch counted in tokens (--target-batch-tokens "
                "or --batch-tokens-schedule) both say how many micro-batches make an update: drop one"
            )
        if getattr(dataset, "tgt_sizes", None) is None:
            raise ValueError("batches counted in target tokens need training data with a target side")

    def _option(self, name: str, default: Any) -> Any:
        """An option of another part of fairseq's configuration, where the task has been set up with all of it."""
        if not isinstance(self.cfg, DictConfig):
            return default
        value = OmegaConf.select(self.cfg._get_root(), name)
        return default if value is None else value


def _parse_target(text: str) -> int:
    """``"32k"`` → 32,000; raises ``ValueError`` naming the option."""
    if text.strip() in ("", "0"):
        return 0
    try:
        return parse_batch_tokens(f"{text.strip()}@0").tokens[0]
    except ValueError:
        raise ValueError(
            f"--target-batch-tokens must be a whole number of target tokens such as 32000, 32k or 0.5m (0 means off), "
            f"got {text!r}"
        ) from None
