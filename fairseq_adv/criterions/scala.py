"""``scala_label_smoothed``, ``scala_sentence_prediction``: ScaLA-style noise, see ``methods/scala.py``."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import math
from dataclasses import dataclass, field
from typing import Any, Iterator, List

from fairseq.dataclass import ChoiceEnum
from torch import Tensor

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AdversarialConfig, require
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.frame.rounded_noise import SmallNoise
from fairseq_adv.criterions.frame.training_log import norm_log
from fairseq_adv.losses import DIVERGENCES
from fairseq_adv.methods.freelb import gradient_left_on, leaf_of
from fairseq_adv.methods.r3f import noise_perturbation
from fairseq_adv.methods.scala import one_step_noise
from fairseq_adv.perturb import Ball, Output
from fairseq_adv.perturb.ascent import ascent_step


@dataclass
class ScalaConfig(AdversarialConfig):
    """The noise. Start and rhythm are the common ``--adv-start-update`` and ``--adv-every``."""

    scala_loss: ChoiceEnum(["kl", "ce"]) = field(  # type: ignore[valid-type]
        default="kl",
        metadata={
            "help": "what the ascent step raises: the divergence (one more forward and a backward to the embeddings), "
            "or the cross-entropy (its gradient comes free from the clean backward pass)"
        },
    )
    scala_sigma: float = field(default=1e-5, metadata={"help": "size of the random start for each coordinate"})
    scala_radius: float = field(default=0.1, metadata={"help": "radius omega of the ball for a sentence's noise"})
    scala_step_size: float = field(default=0.1, metadata={"help": "length rho of the one ascent step"})
    adv_divergence: ChoiceEnum(list(DIVERGENCES)) = field(  # type: ignore[valid-type]
        default="kl", metadata={"help": "kl: KL(p||q) in nats; sym-kl: the mean of both directions"}
    )


@register_method("scala", ScalaConfig)
class ScalaCriterion(AdversarialCriterion):
    """CE(x) + λ KL(p‖f(x + δ)), δ one ascent step from tiny noise."""

    def __init__(self, cfg: ScalaConfig, task: Any) -> None:
        super().__init__(cfg, task)
        for name in ("scala_sigma", "scala_radius", "scala_step_size"):
            value = getattr(cfg, name)
            require(0 <= value < math.inf, f"--{name.replace('_', '-')}", "finite and >= 0", value)
        self.ascends = str(cfg.scala_loss) == "kl"
        if self.trains_perturbed and str(cfg.scala_loss) == "ce":
            raise ValueError(
                "--adv-objective perturbed: --scala-loss ce takes its perturbation from the clean pass's backward "
                "pass, which would not run; choose --scala-loss kl"
            )

    def needs_gradients_between(self) -> bool:
        return str(self.cfg.scala_loss) == "ce"

    def num_backwards(self) -> int:
        return 2 if str(self.cfg.scala_loss) == "ce" else super().num_backwards()

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        return self._reusing_terms(batch) if str(self.cfg.scala_loss) == "ce" else super().loss_terms(batch)

    def small_noises(self) -> List[SmallNoise]:
        sigma = self.cfg.scala_sigma
        return [SmallNoise("the ascent's start", "--scala-sigma", sigma, sigma, True)] if sigma > 0 else []

    def compared_output(self, batch: TrainingBatch) -> Output:
        cfg = self.cfg
        delta, broken = one_step_noise(
            batch.passes,
            batch.from_clean("kl"),
            cfg.scala_sigma,
            self.radius(cfg.scala_radius),
            self.radius(cfg.scala_step_size),
            self.seed,
            stream=self.epoch,
        )
        batch.log.update(norm_log(delta), adv_nonfinite=broken.sum())
        return batch.perturbed(delta)

    def _reusing_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        """CE first; its backward pass gives g at x, and nothing of the divergence flows through the clean output."""
        cfg, leaf = self.cfg, leaf_of(batch.passes.zero())
        clean = batch.passes.clean(leaf)
        yield batch.loss(clean)
        gradient, broken = gradient_left_on(leaf)
        start = noise_perturbation(batch.passes, "normal", cfg.scala_sigma, self.seed, self.epoch)
        ball = Ball(self.radius(cfg.scala_radius))
        delta = ascent_step(start, gradient, ball, self.radius(cfg.scala_step_size)).zero_rows(broken)
        penalty = batch.divergence(clean.detach(), batch.passes.perturbed(delta))
        batch.log.update(norm_log(delta), adv_nonfinite=broken.sum(), adv_loss=penalty.data)
        yield self.strength() * penalty
