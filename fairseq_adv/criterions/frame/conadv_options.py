"""ConAdv's own options and their checks."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import math
from dataclasses import dataclass, field
from typing import Any

from fairseq.dataclass import ChoiceEnum

from fairseq_adv.criterions.frame.config import AdversarialConfig, require
from fairseq_adv.perturb import EmbeddingHook


@dataclass
class ConadvConfig(AdversarialConfig):
    """ConAdv's radius and where its perturbations come from."""

    conadv_mode: ChoiceEnum(["lookahead", "shifted"]) = field(  # type: ignore[valid-type]
        default="lookahead",
        metadata={
            "help": "lookahead: perturb each batch by a gradient that was taken one update earlier, beside that update "
            "(needs --task adversarial_translation or adversarial_sentence_prediction); shifted: train each batch's "
            "perturbed version one update later, with the gradient of its own clean pass (no extra pass)"
        },
    )
    conadv_alpha: float = field(
        default=0.1,
        metadata={
            "help": "normalised: norm of a sentence's perturbation, in units of the raw word embeddings; raw: factor "
            "of the gradient"
        },
    )
    conadv_gradient: ChoiceEnum(["normalised", "raw"]) = field(  # type: ignore[valid-type]
        default="normalised",
        metadata={
            "help": "raw: alpha times the gradient of the sentence's loss (the paper's Eq. 3); normalised: a step of "
            "length alpha along it"
        },
    )
    conadv_start_norm: float = field(
        default=0.0,
        metadata={
            "help": "norm of the random start that the step is taken from, at most alpha where it is normalised (the "
            "paper's Sec. 4.1; 0 means none, as its Eq. 3)"
        },
    )
    conadv_delay: int = field(
        default=1, metadata={"help": "updates between the gradient of a perturbation and its use, the paper's tau"}
    )
    conadv_placement: ChoiceEnum(["same", "spare"]) = field(  # type: ignore[valid-type]
        default="same",
        metadata={
            "help": "same: each rank perturbs its own coming batches; spare: half of the ranks train and the other "
            "half perturbs their coming batches meanwhile"
        },
    )


def check_conadv(cfg: ConadvConfig) -> None:
    """Refuse impossible values of :class:`ConadvConfig` before any training."""
    require(0 <= cfg.conadv_alpha < math.inf, "--conadv-alpha", "finite and >= 0", cfg.conadv_alpha)
    weights = "0 (off) or 1: both halves of ConAdv's loss weigh the same"
    require(cfg.adv_lambda in (0.0, 1.0), "--adv-lambda", weights, cfg.adv_lambda)
    normalised = str(cfg.conadv_gradient) == "normalised"
    rule = "in [0, --conadv-alpha]: the start lies in the ball" if normalised else "finite and >= 0"
    fits = 0 <= cfg.conadv_start_norm <= (cfg.conadv_alpha if normalised else cfg.conadv_start_norm)
    require(fits and cfg.conadv_start_norm < math.inf, "--conadv-start-norm", rule, cfg.conadv_start_norm)
    require(cfg.conadv_delay >= 1, "--conadv-delay", ">= 1", cfg.conadv_delay)
    if str(cfg.conadv_mode) == "shifted":
        _refuse_what_looks_ahead(cfg)


def _refuse_what_looks_ahead(cfg: ConadvConfig) -> None:
    asked = {
        "--conadv-gradient raw": str(cfg.conadv_gradient) == "raw",
        "--conadv-start-norm": cfg.conadv_start_norm > 0,
        "--conadv-delay": cfg.conadv_delay > 1,
        "--conadv-placement spare": str(cfg.conadv_placement) == "spare",
    }
    for option, is_asked in asked.items():
        if is_asked:
            raise ValueError(
                f"{option}: --conadv-mode shifted steps along the gradient that its backward pass leaves at the clean "
                "input, scaled as the loss is, one update later; choose --conadv-mode lookahead"
            )


def refuse_to_look_ahead(task: Any, own_task: str, hook: EmbeddingHook) -> None:
    """Raise ``ValueError`` where a coming batch is not told, or where the *hook*'s model cannot run it meanwhile."""
    if not hasattr(task, "upcoming_batches"):
        raise ValueError(
            "--conadv-mode lookahead needs the next update's batch, which the batch iterator of "
            f"{type(task).__name__} does not tell: train with --task {own_task}, or choose --conadv-mode shifted"
        )
    if hook.buffers:
        raise ValueError(
            "--conadv-mode lookahead computes perturbations beside the update, but each pass of "
            f"{type(hook.model).__name__} moves its buffers (the statistics of batch norms, the vectors of "
            "--spectral-norm-classification-head): choose --conadv-mode shifted, or disadv"
        )
