"""Some rows of a batch as a method sees them, while the other rows are trained without it."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.heads.head import JointLoss, LossWeights
from fairseq_adv.perturb import Output, Perturbation
from fairseq_adv.perturb.noise import sample_numbers


class BatchPart(TrainingBatch):
    """The rows *rows* (``n``, int64, on the CPU) of the batch *whole*: passes at x + δ, ascents and log are theirs.

    The clean output of the loss is that of the whole batch. An ascent compares with one more pass over the rows at x,
    without a graph and under the masks of the ascent: :attr:`clean`. The part's own losses are multiplied by *factor*.
    """

    def __init__(self, whole: TrainingBatch, rows: Tensor, factor: float = 1.0) -> None:
        _ = whole.clean  # the passes of the part begin where that one has been
        self._whole = whole
        self.rows = index = rows.to(whole.sample["id"].device, non_blocking=True)
        self.factor = factor
        super().__init__(whole._head, whole.model, self._sample_of(rows, index), whole._hook, whole._outer)
        self.passes.follow(whole.passes)
        width = len(whole.targets.values) // whole.sample["id"].numel()  # rows of an output for each row of a batch
        columns = torch.arange(width, device=index.device)
        self._places = (index.unsqueeze(1) * width + columns).view(-1)  # the part's, among the output's rows
        self.log = whole.log

    def _sample_of(self, rows: Tensor, index: Tensor) -> Dict[str, Any]:
        """The batch's *rows* (*index* on the device); what is no tensor of the input stays as it was."""
        sample = self._whole.sample
        inputs: Dict[str, Any] = {}
        for name, value in sample["net_input"].items():
            inputs[name] = value.index_select(0, index) if torch.is_tensor(value) else value
            padded = getattr(value, "padded", None)
            if padded is not None:  # noted by compat's ask_before_the_gpu; a part has padding at most where all has
                inputs[name].padded = padded
        ids = sample["id"].index_select(0, index)
        if ids.device.type != "cpu":
            ids.on_cpu = self._whole.ids_on_cpu.index_select(0, rows)
        return {**sample, "id": ids, "net_input": inputs, "target": sample["target"].index_select(0, index)}

    @property
    def whole(self) -> TrainingBatch:
        return self._whole

    @property
    def clean(self) -> Output:
        if self._clean is None:
            self._clean = self.passes.clean_inner()
        return self._clean

    def joint_loss(self, perturbed: Output, weights: LossWeights) -> JointLoss:
        """The clean output's loss on all rows; that of the *perturbed* one, and the divergence, times the factor."""
        whole, outer = self._whole, self._outer
        clean = weights.clean * whole.loss(whole.clean) if weights.clean else None
        own = LossWeights(0.0, weights.perturbed, weights.divergence)
        compared = whole.clean.index_select(0, self._places)
        joint = self._head.joint_loss(
            compared, perturbed, self.targets, own, outer.divergence, outer.detach_clean, self.log
        )
        total = self.factor * joint.total
        values = (None if value is None else self.factor * value for value in joint[1:])
        return JointLoss(total if clean is None else clean + total, *values)


def chosen_rows(ids: Tensor, fraction: float, seed: int, epoch: int) -> Tuple[np.ndarray, float]:
    """The rows (``n``, ascending) of a batch that ``--adv-fraction`` leaves to the method, and what they count for.

    A sample is chosen with probability *fraction*, whatever batch and rank it is in, and counts 1/*fraction*, so that
    losses are on average those of all rows. Where none of *ids* (``B``, on the CPU) is chosen, one row is there for
    nothing: each micro-batch has the same passes. Nothing but id, seed and epoch decides.
    """
    numbers = sample_numbers(ids, seed, epoch).numpy()
    rows = np.flatnonzero(numbers < fraction)
    return (rows, 1.0 / fraction) if len(rows) else (numbers.argmin(axis=0, keepdims=True), 0.0)


def beside(rest: Optional[Perturbation], rows: Optional[Tensor], delta: Perturbation) -> Perturbation:
    """*delta* for *rows* of a batch and the *rest* for its other ones; without these, *delta* alone."""
    return delta if rest is None or rows is None else rest.with_rows(rows, delta)
