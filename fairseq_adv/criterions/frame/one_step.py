"""ConAdv's perturbation: one gradient step on the task's own loss, for the present batch or a coming one."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Tuple

import torch
from fairseq.optim.amp_optimizer import AMPOptimizer
from torch import Tensor

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch, autocast
from fairseq_adv.criterions.frame.config import AdversarialConfig, run_seed
from fairseq_adv.methods.conadv import one_step
from fairseq_adv.perturb import Ball, Perturbation, initial_perturbation

# The gradient of a cross-entropy in half precision is scaled as fairseq's --fp16-init-scale does by default.
_HALF_LOSS_SCALE = 128.0


class OneStep(AdversarialCriterion):
    """What needs nothing but the model, the batch and the options ``conadv_*``."""

    def __init__(self, cfg: AdversarialConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self._amp = False
        self._prepare: Callable[[Dict[str, Any]], Dict[str, Any]] = lambda sample: sample  # as the trainer's batches

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        super().begin_training(trainer, state)
        self._amp = isinstance(getattr(trainer, "optimizer", None), AMPOptimizer)
        self._prepare = lambda sample: trainer._prepare_sample(sample)[0]

    def step_of(self, batch: TrainingBatch) -> Tuple[Perturbation, Tensor]:
        """α g/‖g‖ under the present parameters, by passes that leave no gradient on them."""
        scale = _HALF_LOSS_SCALE if next(batch.bare.parameters()).dtype != torch.float32 or self._amp else 1.0

        def loss(delta: Perturbation) -> Tensor:
            hook = self.hook(batch.bare)
            with hook.buffers.untouched(), hook.adding(delta):
                return batch.loss(batch.bare_pass()) * scale

        return one_step(
            loss,
            batch.passes.zero(),
            self.radius(self.cfg.conadv_alpha),
            self._start(batch) if self.cfg.conadv_start_norm > 0 else None,
            str(self.cfg.conadv_gradient) == "normalised",
            scale,
        )

    def _start(self, batch: TrainingBatch) -> Perturbation:
        """A random point on the sphere of ``--conadv-start-norm``, by seed, epoch and sample."""
        passes, ball = batch.passes, Ball(self.radius(self.cfg.conadv_start_norm))
        seed = run_seed(self.cfg)
        return initial_perturbation("uniform", passes.ids, passes.masks, passes.dims, ball, 1.0, seed, self.epoch)

    def shape_of_upcoming(self, model: Any, sample: Dict[str, Any]) -> Tuple[Tensor, Perturbation]:
        """The ids of a coming batch and a δ of zero for it."""
        return sample["id"], self.open_batch(model, sample).passes.zero()

    def upcoming_perturbation(self, model: Any, sample: Dict[str, Any]) -> Tuple[Tensor, Perturbation, Tensor]:
        """δ of a batch of the next update; its ids stay on the CPU."""
        ids = sample["id"]
        sample = self._prepare(sample)
        with autocast(self._amp):
            delta, broken = self.step_of(self.open_batch(model, sample))
        return ids, delta, broken
