"""Options that several criterions share, and their checks: one dataclass for each kind of method."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import logging
import math
from dataclasses import dataclass, field
from typing import Any, Optional, Tuple

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import DictConfig, OmegaConf

from fairseq_adv.criterions.frame.presets import PRESETS, apply_preset
from fairseq_adv.criterions.heads.head import Head
from fairseq_adv.losses import DIVERGENCES
from fairseq_adv.methods.worst_case import Ascent
from fairseq_adv.perturb import Ball
from fairseq_adv.perturb.balls import LEVELS, NORMS
from fairseq_adv.perturb.noise import DISTRIBUTIONS

logger = logging.getLogger(__name__)

GRADIENTS = ("normalised", "raw")
OBJECTIVES = ("clean", "perturbed")
SIDE_CHOICES = {"both": ("src", "tgt"), "src": ("src",), "tgt": ("tgt",)}


@dataclass
class AdversarialConfig(FairseqDataclass):
    """What every method has: strength, sides, divergence and when it is on."""

    adv_lambda: float = field(
        default=1.0,
        metadata={"help": "weight of the regulariser beside the cross-entropy (0 means off: plain training)"},
    )
    adv_sides: ChoiceEnum(list(SIDE_CHOICES)) = field(  # type: ignore[valid-type]
        default="both",
        metadata={"help": "word embeddings that are perturbed: source, target input, or both (all that there are)"},
    )
    adv_divergence: ChoiceEnum(list(DIVERGENCES)) = field(  # type: ignore[valid-type]
        default="sym-kl",
        metadata={"help": "kl: KL(p||q) in nats; sym-kl: the mean of KL(p||q) and KL(q||p); p is the clean output"},
    )
    adv_detach_clean: bool = field(
        default=False, metadata={"help": "let no gradient of the divergence flow through the clean output"}
    )
    adv_start_update: str = field(
        default="0",
        metadata={
            "help": "number of updates of plain training before the method starts (0 means at once); auto or auto:N: "
            "until --best-checkpoint-metric has not improved for 5 or N validations at ends of epochs"
        },
    )
    adv_every: int = field(
        default=1,
        metadata={"help": "regularise each k-th update from --adv-start-update on; the others are plain"},
    )
    adv_fraction: float = field(
        default=1.0,
        metadata={
            "help": "share of the pairs that are regularised, drawn anew in each epoch (ours, cheaper: an update costs "
            "about 1 + share of a plain one instead of 2; the divergence is divided by the share)"
        },
    )
    adv_radius_schedule: str = field(
        default="",
        metadata={
            "help": "factors of the radius and step size by update, such as 1@0,2@2000 (larger batches bear larger "
            "perturbations); the default is a constant radius"
        },
    )
    adv_objective: ChoiceEnum(list(OBJECTIVES)) = field(  # type: ignore[valid-type]
        default="clean",
        metadata={
            "help": "input that the cross-entropy is trained on: clean (the papers), or perturbed (ours, cheaper: the "
            "clean pass only gives the divergence its p and has no backward pass)"
        },
    )
    adv_outer_masks: ChoiceEnum(["fresh", "shared"]) = field(  # type: ignore[valid-type]
        default="fresh",
        metadata={"help": "dropout masks of the perturbed pass in the loss: drawn afresh, or those of the clean pass"},
    )
    adv_passes: ChoiceEnum(["sequential", "concat", "recompute"]) = field(  # type: ignore[valid-type]
        default="sequential",
        metadata={
            "help": "sequential: the clean and the perturbed pass one after the other (least memory, and with "
            "--adv-detach-clean only one graph at a time); concat: one pass over twice the rows where the perturbation "
            "is known beforehand (fewer kernel launches); recompute: the perturbed pass first without a graph, and "
            "again with one when the clean graph is gone (one graph at a time, one pass more, the same gradient)"
        },
    )
    adv_seed: Optional[int] = field(
        default=None, metadata={"help": "seed of random starts, noise and the cache set (default: that of --seed)"}
    )


@dataclass
class AscentConfig(AdversarialConfig):
    """What methods with an inner maximisation add: the ball and the ascent. Defaults: ARCH, appendix B.1."""

    adv_eps: float = field(
        default=0.1,
        metadata={"help": "radius of the ball, in units of the raw word embeddings (0 means no perturbation)"},
    )
    adv_steps: int = field(default=3, metadata={"help": "number of ascent steps S"})
    adv_step_size: Optional[float] = field(
        default=None,
        metadata={
            "help": "length of one ascent step, in the ball's norm (default: --adv-eps, as the paper's 0.1 and 0.1)"
        },
    )
    adv_norm: ChoiceEnum(list(NORMS)) = field(  # type: ignore[valid-type]
        default="l2", metadata={"help": "norm of the ball and of the normalised gradient"}
    )
    adv_level: ChoiceEnum(list(LEVELS)) = field(  # type: ignore[valid-type]
        default="sentence", metadata={"help": "one ball for all words of a sentence together, or one for each word"}
    )
    adv_init: ChoiceEnum(list(DISTRIBUTIONS)) = field(  # type: ignore[valid-type]
        default="uniform", metadata={"help": "distribution of the start of the ascent"}
    )
    adv_init_scale: float = field(
        default=1.0, metadata={"help": "norm of the start of the ascent, as a share of --adv-eps"}
    )
    adv_init_sigma: float = field(
        default=0.0,
        metadata={
            "help": "size of each coordinate of the start (sigma of normal, half the width of uniform), in place of "
            "--adv-init-scale (0 means off: the start has the norm of --adv-init-scale)"
        },
    )
    adv_gradient: ChoiceEnum(list(GRADIENTS)) = field(  # type: ignore[valid-type]
        default="normalised",
        metadata={
            "help": "normalised: a step has length --adv-step-size; raw: a step is --adv-step-size times the gradient "
            "of the sentence's divergence (standard projected gradient ascent)"
        },
    )
    adv_preset: ChoiceEnum(["none", *PRESETS]) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "values for options that are at their defaults; paper: ARCH's appendix B.1 (translation); "
            "release: ARCH's public code (which has --update-freq 1 too); arch-b2: ARCH's appendix B.2 (language "
            "understanding; they change outputs by about 1e-6)"
        },
    )


def require(condition: bool, option: str, rule: str, value: object) -> None:
    """Raise ``ValueError``: ``--option must be <rule>, got <value>`` unless *condition* holds."""
    if not condition:
        raise ValueError(f"{option} must be {rule}, got {value}")


def take_seed(cfg: Any) -> None:
    """Put the seed of the run where ``--adv-seed`` was not given.

    An interpolated default (``II``) would not do: fairseq's parser leaves such options out, or overwrites them by null.
    """
    if cfg.adv_seed is None:
        seed = OmegaConf.select(cfg._get_root(), "common.seed") if isinstance(cfg, DictConfig) else None
        cfg.adv_seed = 1 if seed is None else seed


def run_seed(cfg: AdversarialConfig) -> int:
    """``--adv-seed`` once it has been taken."""
    assert cfg.adv_seed is not None, "take_seed comes first"
    return cfg.adv_seed


def perturbed_sides(choice: str, head: Head) -> Tuple[str, ...]:
    """The sides of ``--adv-sides`` *choice*; raises ``ValueError`` for one that inputs of *head* do not have."""
    sides = tuple(side for side in SIDE_CHOICES[choice] if side in head.sides)
    if not sides:
        raise ValueError(f"--adv-sides {choice}: the input of *_{head.suffix} has no such side; leave the option out")
    return sides


def check_adversarial(cfg: AdversarialConfig) -> None:
    """Refuse impossible values of :class:`AdversarialConfig` before any training."""
    require(0 <= cfg.adv_lambda < math.inf, "--adv-lambda", "finite and >= 0", cfg.adv_lambda)
    require(cfg.adv_every >= 1, "--adv-every", ">= 1", cfg.adv_every)


def check_ascent(cfg: AscentConfig) -> None:
    """Apply ``--adv-preset`` and refuse impossible values of :class:`AscentConfig` before any training."""
    apply_preset(cfg)
    require(0 <= cfg.adv_eps < math.inf, "--adv-eps", "finite and >= 0", cfg.adv_eps)
    require(cfg.adv_steps >= 0, "--adv-steps", ">= 0", cfg.adv_steps)
    given = cfg.adv_step_size
    require(given is None or 0 < given < math.inf, "--adv-step-size", "finite and > 0", given)
    require(0 < cfg.adv_init_scale <= 1, "--adv-init-scale", "in (0, 1]", cfg.adv_init_scale)
    require(0 <= cfg.adv_init_sigma < math.inf, "--adv-init-sigma", "finite and >= 0", cfg.adv_init_sigma)
    rule = "left out: the start has the size of --adv-init-sigma"
    require(cfg.adv_init_sigma == 0 or cfg.adv_init_scale == 1, "--adv-init-scale", rule, cfg.adv_init_scale)
    if str(cfg.adv_init) == "zero" and cfg.adv_steps > 0:
        raise ValueError(
            "--adv-init zero: the divergence between equal outputs has no gradient, so the ascent would never "
            "leave zero; choose uniform or normal, or set --adv-steps 0"
        )
    _warn_of_noise(cfg)


def step_size_of(cfg: AscentConfig) -> float:
    """η: ``--adv-step-size``, or ``--adv-eps`` where it was not given."""
    return cfg.adv_eps if cfg.adv_step_size is None else cfg.adv_step_size


def _warn_of_noise(cfg: AscentConfig) -> None:
    """Say where S steps together are shorter than the start, so that the result is mostly its noise."""
    reach, start = cfg.adv_steps * step_size_of(cfg), cfg.adv_init_scale * cfg.adv_eps
    from_radius = cfg.adv_init_sigma == 0 and str(cfg.adv_init) != "zero" and str(cfg.adv_gradient) == "normalised"
    if from_radius and cfg.adv_steps > 0 and reach < start:
        logger.warning(
            "--adv-steps %d of --adv-step-size %g cannot leave the random start of norm %g (--adv-init-scale x "
            "--adv-eps) behind: perturbations will be mostly noise; leave --adv-step-size out (then it is --adv-eps) "
            "or lower --adv-init-scale",
            cfg.adv_steps,
            step_size_of(cfg),
            start,
        )


def ascent_of(cfg: AscentConfig, factor: float = 1.0) -> Ascent:
    """The ascent that *cfg* describes, radius and step size times *factor*."""
    return Ascent(
        ball=Ball(cfg.adv_eps * factor, str(cfg.adv_norm), str(cfg.adv_level)),
        steps=cfg.adv_steps,
        step_size=step_size_of(cfg) * factor,
        init=str(cfg.adv_init),
        init_scale=cfg.adv_init_scale,
        init_sigma=cfg.adv_init_sigma * factor,
        normalised=str(cfg.adv_gradient) == "normalised",
        seed=run_seed(cfg),
    )
