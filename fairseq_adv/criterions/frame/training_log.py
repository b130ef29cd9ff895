"""The method's columns of the training log: what each micro-batch adds, and their means over regularised sentences."""

from __future__ import annotations

import math
from typing import Any, Dict, List

import torch
from fairseq.logging import metrics
from torch import Tensor

from fairseq_adv.perturb import Perturbation

# Sums over the batch: adv_loss over target tokens in nats, adv_nonfinite a count, the others over sentences.
LOG_KEYS = (
    "adv_loss",
    "adv_norm_src",
    "adv_norm_tgt",
    "adv_refresh",
    "adv_cached",
    "adv_further",  # rebuilt from a further neighbour than the nearest, which is not in the cache
    "adv_without",  # no neighbour in the cache: trained with δ = 0
    "adv_nonfinite",
    "adv_sentences",
    "adv_regularised",  # those of adv_sentences whose update was no plain one
    "adv_sample_size",  # what the regularised sentences' loss is divided by
)
_TENSOR_KEYS = ("adv_loss", "adv_norm_src", "adv_norm_tgt", "adv_nonfinite")


def uniform_log(values: Dict[str, Any], device: torch.device) -> Dict[str, Any]:
    """*values* of :data:`LOG_KEYS`, 0 where there is none, in one order and with one type for each.

    Fairseq sums the logs of the ranks by position, tensors apart from numbers; a dummy batch's log must line up.
    """
    log: Dict[str, Any] = {key: values.get(key, 0) for key in LOG_KEYS}
    for key in _TENSOR_KEYS:
        value = log[key]
        log[key] = value.float() if torch.is_tensor(value) else torch.full((), float(value), device=device)
    return log


def norm_log(delta: Perturbation) -> Dict[str, Tensor]:
    """``adv_norm_src`` and ``adv_norm_tgt``: the ℓ2 norms of the sentences' perturbations, summed over the batch."""
    return {f"adv_norm_{side}": delta.sentence_norms(side).sum() for side in delta.sides}


def reduce_own_columns(logging_outputs: List[Dict[str, Any]]) -> None:
    """Means over what was regularised, whatever share of the updates that is; nothing in evaluation.

    A plain update adds columns of weight 0: they keep the means of the interval as they are.
    """
    total = read_at_once({key: sum(log.get(key, 0) for log in logging_outputs) for key in LOG_KEYS})
    if total["adv_sentences"] == 0:
        return
    sentences, size = total["adv_regularised"], total["adv_sample_size"]
    loss = total["adv_loss"] / size / math.log(2) if size else 0.0
    metrics.log_scalar("adv_loss", loss, size, round=5)
    for key in ("adv_norm_src", "adv_norm_tgt", "adv_refresh", "adv_cached", "adv_further", "adv_without"):
        metrics.log_scalar(key, total[key] / sentences if sentences else 0.0, sentences, round=4)
    metrics.log_scalar_sum("adv_nonfinite", total["adv_nonfinite"])


def read_at_once(values: Dict[str, Any]) -> Dict[str, float]:
    """*values* as numbers; those that are tensors by one copy, for each copy waits for a GPU."""
    keys = [key for key, value in values.items() if torch.is_tensor(value)]
    if not keys:
        return values
    read = torch.stack([values[key].double() for key in keys]).tolist()
    return {**values, **dict(zip(keys, read))}
