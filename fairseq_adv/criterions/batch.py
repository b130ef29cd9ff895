"""One training batch as a method sees it: its passes, its clean output and its cross-entropy."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion, label_smoothed_nll_loss
from torch import Tensor, nn

from fairseq_adv.perturb import BatchPasses, EmbeddingHook
from fairseq_adv.perturb.hooks import without_activation_checkpoints

TOKENS = {"src": "src_tokens", "tgt": "prev_output_tokens"}
# Half-precision gradients of a divergence of 1e-4 nats would underflow; the ascent normalises them anyway.
HALF_GRADIENT_SCALE = 1024.0


def bare_model(model: nn.Module) -> nn.Module:
    """The model inside the wrappers for distributed training (each keeps it under ``module``)."""
    while isinstance(getattr(model, "_modules", {}).get("module"), nn.Module):
        model = model._modules["module"]  # type: ignore[assignment]
    return model


class TrainingBatch:
    """The clean pass of one batch, run on construction, and the means to run more.

    ``ce`` and ``nll`` are what ``label_smoothed_cross_entropy`` computes, by the same operations in the same order.
    ``log_probs`` (``N x V``, N = B·T) is the clean output, ``target_mask`` (``N``) marks the target tokens that count.
    """

    def __init__(
        self,
        criterion: LabelSmoothedCrossEntropyCriterion,
        model: nn.Module,
        sample: Dict[str, Any],
        hook: EmbeddingHook,
        shared_masks: bool,
    ) -> None:
        self._criterion, self._model, self._bare, self.sample = criterion, model, bare_model(model), sample
        net_input = sample["net_input"]
        self.passes = BatchPasses(
            outer=self._outer,
            inner=self._inner,
            hook=hook,
            tokens={side: net_input[TOKENS[side]] for side in hook.pads},
            ids=sample["id"],
            shared_masks=shared_masks,
            gradient_scale=HALF_GRADIENT_SCALE if self._half_precision() else 1.0,
        )
        self.log_probs = self.passes.clean()
        self.target_mask = self._target.ne(criterion.padding_idx)
        self.ce, self.nll = label_smoothed_nll_loss(
            self.log_probs, self._target, criterion.eps, ignore_index=criterion.padding_idx, reduce=True
        )

    def _half_precision(self) -> bool:
        parameter = next(self._bare.parameters())
        return parameter.dtype != torch.float32 or torch.is_autocast_enabled()

    def _forward(self, model: nn.Module) -> Tuple[Tensor, Any]:
        net_output = model(**self.sample["net_input"])
        log_probs, self._target = self._criterion.get_lprobs_and_target(model, net_output, self.sample)
        return log_probs, net_output

    def _outer(self) -> Tensor:
        log_probs, net_output = self._forward(self._model)
        if not hasattr(self, "net_output"):
            self.net_output = net_output  # of the clean pass, for --report-accuracy
        return log_probs

    def _inner(self) -> Tensor:
        with without_activation_checkpoints(self._bare):
            return self._forward(self._bare)[0]
