"""``--task adversarial_translation``: fairseq's translation task with what only a task can change.

See ``planned_updates.py``; ``--target-batch-tokens`` and ``--batch-tokens-schedule`` state the batch of an update in
target tokens over all ranks; ``--adv-source-cutoff`` hides words of the source, ``--adv-source-bpe-dropout`` cuts them
anew.
"""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_adv.data.batch_tokens import BatchTokensSchedule, batch_tokens_schedule, parse_target
from fairseq_adv.data.bpe_dropout import BpeDropout, merge_ranks
from fairseq_adv.data.source_augmentation import read_sources
from fairseq_adv.data.source_cutoff import SourceCutoff
from fairseq_adv.tasks.planned_updates import PlannedUpdates, set_data_loading


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
    adv_source_bpe_dropout: float = field(
        default=0.0,
        metadata={
            "help": "data augmentation: probability that a merge is left out where the words of a training source are "
            "cut into pieces, drawn anew in each epoch; batches are made by the lengths without it (0 means off)"
        },
    )
    adv_source_bpe_model: str = field(
        default="", metadata={"help": "sentencepiece model of byte-pair encoding that the source was cut with"}
    )


def check_augmentation(cfg: Any) -> None:
    """Raise ``ValueError`` for a probability that is none, and for what does not go with sources of other lengths."""
    for name in ("adv_source_cutoff", "adv_source_bpe_dropout"):
        if not 0 <= getattr(cfg, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be in [0, 1), got {getattr(cfg, name)}")
    if cfg.adv_source_bpe_dropout > 0 and not cfg.adv_source_bpe_model:
        raise ValueError(
            "--adv-source-bpe-dropout needs --adv-source-bpe-model, the model that the source was cut with"
        )
    if cfg.adv_source_bpe_dropout > 0 and cfg.num_batch_buckets > 0:
        raise ValueError(
            f"--num-batch-buckets {cfg.num_batch_buckets} pads sources to lengths, which --adv-source-bpe-dropout "
            "changes: drop one of them"
        )


@register_task("adversarial_translation", dataclass=AdversarialTranslationConfig)
class AdversarialTranslationTask(PlannedUpdates, TranslationTask):
    """Translation with batches that survive a resume, counted in tokens if wanted."""

    def __init__(self, cfg: AdversarialTranslationConfig, src_dict: Any, tgt_dict: Any) -> None:
        set_data_loading(cfg)
        super().__init__(cfg, src_dict, tgt_dict)
        check_augmentation(cfg)
        self.plan_batches(self.build_batch_tokens_schedule(cfg))
        if self.batch_tokens is not None and cfg.num_batch_buckets > 0:
            raise ValueError(
                f"--num-batch-buckets {cfg.num_batch_buckets} pads the target sentences, whose tokens can then not be "
                "counted beforehand: drop it, or set --update-freq in place of a batch counted in tokens"
            )

    @classmethod
    def build_batch_tokens_schedule(cls, cfg: Any) -> Optional[BatchTokensSchedule]:
        """Target tokens by update as *cfg* states them, ``None`` where batches are not counted in tokens.

        ``--lr-scheduler inverse_sqrt_batch`` asks for it too.
        """
        return batch_tokens_schedule(parse_target(str(cfg.target_batch_tokens)), str(cfg.batch_tokens_schedule or ""))

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        super().load_dataset(split, *args, **kwargs)
        if split == self._option("dataset.train_subset", "train"):
            self._augment(self.datasets[split], int(self._option("common.seed", 1)))

    def _augment(self, dataset: Any, seed: int) -> None:
        """Words are cut anew first, then hidden."""
        if self.cfg.adv_source_bpe_dropout > 0:
            ranks = merge_ranks(Path(self.cfg.adv_source_bpe_model))
            share, longest = self.cfg.adv_source_bpe_dropout, self.cfg.max_source_positions
            read_sources(dataset, BpeDropout(dataset.src, share, ranks, self.src_dict, longest, seed))
        if self.cfg.adv_source_cutoff > 0:
            share, unknown, end = self.cfg.adv_source_cutoff, self.src_dict.unk(), self.src_dict.eos()
            read_sources(dataset, SourceCutoff(dataset.src, share, unknown, end, seed))

    def check_countable(self, dataset: Any) -> None:
        if getattr(dataset, "tgt_sizes", None) is None:
            raise ValueError("batches counted in target tokens need training data with a target side")
