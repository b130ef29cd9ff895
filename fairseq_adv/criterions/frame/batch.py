"""One training batch as a method sees it: its passes, its clean output, its cross-entropy and its log."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion, label_smoothed_nll_loss
from torch import Tensor, nn

from fairseq_adv.perturb import BatchPasses, EmbeddingHook, Perturbation
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
    """One batch, its passes and what came of them.

    With *concat*, a pass that may share its forward with the clean one does so, over 2B rows. With *trains_perturbed*
    the clean pass has no graph, and the cross-entropy is that of the perturbed output. ``log`` collects the method's
    columns of the training log.
    """

    def __init__(
        self,
        criterion: LabelSmoothedCrossEntropyCriterion,
        model: nn.Module,
        sample: Dict[str, Any],
        hook: EmbeddingHook,
        shared_masks: bool,
        concat: bool = False,
        trains_perturbed: bool = False,
    ) -> None:
        self._criterion, self._model, self.bare, self.sample = criterion, model, bare_model(model), sample
        self._concat, self._trains_perturbed = concat, trains_perturbed
        self.passes = BatchPasses(
            outer=lambda: self._forward(self._model, self.sample),
            inner=self.bare_pass,
            hook=hook,
            tokens={side: sample["net_input"][TOKENS[side]] for side in hook.pads},
            ids=sample["id"],
            shared_masks=shared_masks,
            gradient_scale=HALF_GRADIENT_SCALE if self._half_precision() else 1.0,
            twofold=lambda: self._forward(self._model, doubled(self.sample)),
        )
        self.target = sample["target"][:, criterion.ignore_prefix_size :].reshape(-1)  # N, padding included
        self.target_mask = self.target.ne(criterion.padding_idx)  # N: the target tokens that count
        self.log: Dict[str, Any] = {}
        self._clean: Optional[Tensor] = None
        self._perturbed: Optional[Tensor] = None
        self._ce: Optional[Tensor] = None

    @property
    def log_probs(self) -> Tensor:
        """The clean output, ``N x V`` with N = B·T; its pass runs when it is first asked for."""
        if self._clean is None:
            self._clean = self.passes.clean_without_gradient() if self._trains_perturbed else self.passes.clean()
        return self._clean

    @property
    def ce(self) -> Tensor:
        """Cross-entropy of the output that is trained: the clean one, or the perturbed one once its pass has run.

        It is what ``label_smoothed_cross_entropy`` computes, by the same operations.
        """
        if self._ce is None:
            self._ce = self.cross_entropy(self._trained_output())
        return self._ce

    def _trained_output(self) -> Tensor:
        if not self._trains_perturbed:
            return self.log_probs
        if self._perturbed is None:
            raise RuntimeError("the cross-entropy is that of the perturbed output, whose pass must come first")
        return self._perturbed

    def cross_entropy(self, log_probs: Tensor) -> Tensor:
        """Label-smoothed cross-entropy summed over target tokens; likelihood and accuracy of the first are logged."""
        loss, nll = label_smoothed_nll_loss(
            log_probs, self.target, self._criterion.eps, ignore_index=self._criterion.padding_idx, reduce=True
        )
        if self._criterion.report_accuracy and "n_correct" not in self.log:
            self.log["n_correct"] = (log_probs.argmax(-1).eq(self.target) & self.target_mask).sum()
        self.log.setdefault("nll_loss", nll.data)
        return loss

    def perturbed(self, delta: Perturbation) -> Tensor:
        """Log-probs ``N x V`` at x + δ for the outer loss."""
        return self._beside_clean(lambda: self.passes.clean_and_perturbed(delta), lambda: self.passes.perturbed(delta))

    def cut(self, keep: Dict[str, Tensor]) -> Tensor:
        """Log-probs ``N x V`` with the words outside *keep* cut off; see :meth:`BatchPasses.cut`."""
        return self._beside_clean(lambda: self.passes.clean_and_cut(keep), lambda: self.passes.cut(keep))

    def _beside_clean(self, both: Callable[[], Tuple[Tensor, Tensor]], alone: Callable[[], Tensor]) -> Tensor:
        if self._concat and self._clean is None:
            self._clean, other = both()
            return other
        _ = self.log_probs  # the clean pass comes first
        other = alone()
        if self._trains_perturbed:
            self._perturbed = other
        return other

    def _half_precision(self) -> bool:
        return next(self.bare.parameters()).dtype != torch.float32 or torch.is_autocast_enabled()

    def _forward(self, model: nn.Module, sample: Dict[str, Any]) -> Tensor:
        net_output = model(**sample["net_input"])
        return self._criterion.get_lprobs_and_target(model, net_output, sample)[0]

    def bare_pass(self) -> Tensor:
        """Log-probs ``N x V`` of one pass of the bare model, activation checkpoints off."""
        with without_activation_checkpoints(self.bare):
            return self._forward(self.bare, self.sample)


def doubled(sample: Dict[str, Any]) -> Dict[str, Any]:
    """The batch twice over, row for row: what one pass over 2B rows needs of it."""
    net_input = {key: torch.cat([value, value]) for key, value in sample["net_input"].items() if torch.is_tensor(value)}
    return {"net_input": net_input, "target": torch.cat([sample["target"], sample["target"]])}
