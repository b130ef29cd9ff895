"""``--task adversarial_sentence_prediction``: fairseq's task for sentences with what only a task can change.

See ``planned_updates.py`` for batches and updates. Batches hold rows of like lengths, drawn anew in each epoch;
fairseq's own task has one order for the whole training and pads about two tokens for each real one.
``--target-batch-sentences`` and ``--batch-sentences-schedule`` state the batch of an update in sentences over all
ranks. Rows start with ``<s>``, whose output the head reads, unless ``--init-token`` says otherwise. Data that would
fail later without a reason are refused when they are loaded.
"""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from fairseq.data import BaseWrapperDataset, SortDataset, indexed_dataset
from fairseq.tasks import register_task
from fairseq.tasks.sentence_prediction import SentencePredictionConfig, SentencePredictionTask

from fairseq_adv.data.batch_tokens import SENTENCES, BatchTokensSchedule, batch_tokens_schedule, parse_target
from fairseq_adv.data.sentence_rows import SentenceRows
from fairseq_adv.tasks.planned_updates import PlannedUpdates, set_data_loading

REPORTS = ("report_mcc", "report_acc_and_f1", "report_pearson_and_spearman")


@dataclass
class AdversarialSentencePredictionConfig(SentencePredictionConfig):
    """Options of fairseq's task for sentences, and the batch in sentences."""

    target_batch_sentences: str = field(
        default="0",
        metadata={
            "help": "sentences that one update sees over all ranks, such as 256 or 1k (0 means off: --update-freq "
            "micro-batches on each rank)"
        },
    )
    batch_sentences_schedule: str = field(
        default="",
        metadata={
            "help": "sentences by update, such as 32@0,256@500,1k@2000, in place of --target-batch-sentences; the "
            "default is a constant batch"
        },
    )


@register_task("adversarial_sentence_prediction", dataclass=AdversarialSentencePredictionConfig)
class AdversarialSentencePredictionTask(PlannedUpdates, SentencePredictionTask):
    """Sentence prediction in batches by length that survive a resume, counted in sentences if wanted."""

    counted_column = "nsentences"

    def __init__(self, cfg: AdversarialSentencePredictionConfig, data_dictionary: Any, label_dictionary: Any) -> None:
        set_data_loading(cfg)
        if cfg.init_token is None:  # the head reads the first column
            cfg.init_token = data_dictionary.bos()
        super().__init__(cfg, data_dictionary, label_dictionary)
        self.plan_batches(self.build_batch_tokens_schedule(cfg))

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> Any:
        if cfg.num_classes < 1:
            raise ValueError(
                f"--num-classes must be the number of classes, or 1 with --regression-target, got {cfg.num_classes}"
            )
        task = super().setup_task(cfg, **kwargs)
        if not cfg.regression_target:
            refuse_more_classes(task.label_dictionary, cfg.num_classes)
        return task

    @classmethod
    def build_batch_tokens_schedule(cls, cfg: Any) -> Optional[BatchTokensSchedule]:
        """Sentences by update as *cfg* states them, ``None`` where batches are not counted in sentences.

        ``--lr-scheduler inverse_sqrt_batch`` asks for it too.
        """
        target = parse_target(str(cfg.target_batch_sentences), SENTENCES)
        return batch_tokens_schedule(target, str(cfg.batch_sentences_schedule or ""), SENTENCES)

    def build_criterion(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.cfg.regression_target:
            refuse_unreportable_classes(cfg, class_names(self.label_dictionary))
        return super().build_criterion(cfg, *args, **kwargs)

    # ---- data ---------------------------------------------------------------------------------------------

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> Any:
        self._refuse_missing_files(split)
        loaded = super().load_dataset(split, combine=combine, **kwargs)
        rows = loaded.dataset if isinstance(loaded, SortDataset) else loaded
        self._refuse_long_rows(split, np.asarray(rows.sizes[0]))
        if "net_input.src_tokens" in rows.defn:
            padded: BaseWrapperDataset = rows.defn["net_input.src_tokens"]
            self.datasets[split] = SentenceRows(rows, padded.dataset, shuffle=not self.cfg.no_shuffle)
        return self.datasets[split]

    def _refuse_missing_files(self, split: str) -> None:
        """Name a file that is not there; without labels fairseq's task would only fail in the loss."""
        inputs = os.path.join(self.cfg.data, "input0", split)
        if not indexed_dataset.dataset_exists(inputs, impl=None):
            raise FileNotFoundError(
                f"no rows {inputs}.bin, .idx: make them with fairseq-preprocess --only-source --srcdict dict.txt "
                f"--destdir {os.path.dirname(inputs)}"
            )
        labels = os.path.join(self.cfg.data, "label", split)
        if self.cfg.regression_target:
            if not os.path.exists(f"{labels}.label"):
                raise FileNotFoundError(f"no numbers to predict {labels}.label: one line for each row of {inputs}")
        elif not indexed_dataset.dataset_exists(labels, impl=None):
            raise FileNotFoundError(
                f"no labels {labels}.bin, .idx: make them with fairseq-preprocess --only-source --destdir "
                f"{os.path.dirname(labels)} of one label a line (numbers to predict need --regression-target)"
            )

    def _refuse_long_rows(self, split: str, sizes: np.ndarray) -> None:
        """Fairseq would leave long rows of the training data out, with a warning among many lines."""
        limit = self.cfg.max_positions
        long = np.flatnonzero(sizes > limit)
        if len(long) and not self._option("dataset.skip_invalid_size_inputs_valid_test", False):
            raise ValueError(
                f"{len(long)} of the {len(sizes)} rows of {split} are longer than --max-positions {limit}; row "
                f"{long[0]} has {sizes[long[0]]} tokens: give --shorten-method truncate, a larger --max-positions, or "
                "--skip-invalid-size-inputs-valid-test to leave them out"
            )

    # ---- ranks --------------------------------------------------------------------------------------------

    def after_load_checkpoint(self, trainer: Any, extra_state: Optional[Dict[str, Any]], reset: bool) -> None:
        super().after_load_checkpoint(trainer, extra_state, reset)
        options = trainer.cfg.distributed_training
        unused = getattr(getattr(trainer.get_model(), "encoder", None), "lm_head", None)
        waits = str(options.ddp_backend) in ("c10d", "pytorch_ddp") and not options.find_unused_parameters
        if waits and unused is not None and trainer.data_parallel_world_size > 1:
            raise ValueError(
                f"--ddp-backend {options.ddp_backend} waits for the gradient of the language model's output layer, "
                "which sentence prediction does not use: give --find-unused-parameters, or --ddp-backend legacy_ddp"
            )

    @staticmethod
    def logging_outputs_can_be_summed(criterion: Any) -> bool:
        """Not with ``--report-…``: fairseq's own criterion then logs lists, and still says that they can."""
        return criterion.logging_outputs_can_be_summed() and not getattr(criterion, "keep_pred_and_targ", False)


def class_names(labels: Any) -> List[str]:
    """The classes of a label dictionary, which fairseq pads with words of its own."""
    return [s for s in labels.symbols[labels.nspecial :] if s != "<mask>" and not s.startswith("madeupword")]


def refuse_unreportable_classes(cfg: Any, classes: Sequence[str]) -> None:
    """Raise ``ValueError`` where fairseq's own criterion could not report what *cfg* wants of *classes*."""
    reports = [name for name in REPORTS if getattr(cfg, name, False)]
    options = ", ".join(f"--{name.replace('_', '-')}" for name in reports)
    if reports and not all(name.isdigit() for name in classes):
        raise ValueError(f"{options} needs labels that are whole numbers, but label/dict.txt has {', '.join(classes)}")
    if "report_acc_and_f1" in reports and not set(classes) <= {"0", "1"}:
        raise ValueError(f"--report-acc-and-f1 needs the labels 0 and 1, but label/dict.txt has {', '.join(classes)}")


def refuse_more_classes(labels: Any, num_classes: int) -> None:
    """Raise ``ValueError`` where the label dictionary has more classes than the head."""
    classes = class_names(labels)
    if len(classes) > num_classes:
        raise ValueError(f"--num-classes {num_classes}, but label/dict.txt has {len(classes)}: {', '.join(classes)}")
