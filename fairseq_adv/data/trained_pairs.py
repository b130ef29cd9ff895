"""Which pairs of a data set a training run takes, and what names that data set."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np
from fairseq import utils
from fairseq.data import data_utils
from fairseq.tasks.sentence_prediction import SentencePredictionTask

from fairseq_adv.data.sentence_rows import SentenceRows
from fairseq_adv.neighbors import dataset_fingerprint
from fairseq_adv.neighbors.fingerprint import Fingerprint, sentence_fingerprint


def sides_of(dataset: Any) -> Tuple[str, ...]:
    """The sides of *dataset* that have words: one for the rows of a sentence task."""
    return ("src",) if isinstance(dataset, SentenceRows) else ("src", "tgt")


def training_fingerprint(task: Any, dataset: Any) -> Fingerprint:
    """Sizes and dictionaries of the training data, as a neighbour file and a cache must have seen them.

    Rows of a sentence task have one side, and labels. Raises ``ValueError`` for a data set of neither kind.
    """
    if isinstance(dataset, SentenceRows):
        return sentence_fingerprint(dataset.src_sizes, task.source_dictionary.symbols, dataset.labels())
    sizes = [getattr(dataset, name, None) for name in ("src_sizes", "tgt_sizes")]
    if any(s is None for s in sizes):
        needed = "translation or adversarial_translation"
        if isinstance(task, SentencePredictionTask):
            needed = "adversarial_sentence_prediction"
        raise ValueError(
            f"perturbations of sentences are cached, but {type(dataset).__name__} of {type(task).__name__} does not "
            f"tell the sizes that name a sentence: train with --task {needed}"
        )
    return dataset_fingerprint(
        np.asarray(sizes[0]), np.asarray(sizes[1]), task.source_dictionary.symbols, task.target_dictionary.symbols
    )


def trained_pairs(task: Any, dataset: Any, model_positions: Any, max_tokens: Optional[int]) -> np.ndarray:
    """The pairs that are not too long to be trained on (bool, one for each id), as fairseq's trainer filters them.

    *model_positions* is the model's ``max_positions()``, or ``None`` for no limit of its own.

    Beyond these an epoch may leave out a few more: a remainder, or what ``--required-batch-size-multiple`` cuts off.
    """
    limit = utils.resolve_max_positions(task.max_positions(), model_positions, max_tokens)
    with data_utils.numpy_seed(1):
        ids = dataset.ordered_indices()
    if limit is not None:
        ids, _ = dataset.filter_indices_by_size(ids, limit)
    trained = np.zeros(len(dataset), dtype=bool)
    trained[np.asarray(ids, dtype=np.int64)] = True
    return trained
