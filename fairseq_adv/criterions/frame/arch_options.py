"""ARCH's own options and their checks."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import math
from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum

from fairseq_adv.criterions.frame.config import AscentConfig, check_ascent, require
from fairseq_adv.losses import DIVERGENCES


@dataclass
class ArchConfig(AscentConfig):
    """Defaults of the paper's appendix B.1, and the one-sided divergence of its Sec. 3.1."""

    adv_divergence: ChoiceEnum(list(DIVERGENCES)) = field(  # type: ignore[valid-type]
        default="kl",
        metadata={"help": "kl: KL(p||q) in nats; sym-kl: the mean of KL(p||q) and KL(q||p); p is the clean output"},
    )
    cache_dir: str = field(default="", metadata={"help": "directory of the cache (default: SAVE_DIR/perturbations)"})
    cache_placement: ChoiceEnum(["shared", "node-local"]) = field(  # type: ignore[valid-type]
        default="shared",
        metadata={
            "help": "shared: all ranks see one cache directory; node-local: each node has its own, kept equal over "
            "the network"
        },
    )
    cache_interval: float = field(
        default=15,
        metadata={"help": "epochs from one refresh of all perturbations to the next, Tc (inf: refresh once)"},
    )
    cache_ema: float = field(
        default=0.01, metadata={"help": "share alpha of the old value in the moving average of a cached perturbation"}
    )
    cache_proportion: float = field(
        default=0.1,
        metadata={"help": "share of the training pairs that is cached; with --cache-neighbors that of the file"},
    )
    cache_neighbors: str = field(
        default="",
        metadata={"help": "file made by `fairseq-adv neighbors` (default: random neighbors, with a warning)"},
    )
    cache_num_neighbors: int = field(
        default=1, metadata={"help": "cached neighbors K that an uncached pair's perturbation is averaged over"}
    )
    cache_dtype: ChoiceEnum(["fp16", "int8", "fp32"]) = field(  # type: ignore[valid-type]
        default="fp16", metadata={"help": "number format of perturbations on disk"}
    )
    cache_means_memory: float = field(
        default=-1.0,
        metadata={
            "help": "GB of the device that the neighbors' means may take, from where they are then served (default: a "
            "quarter of its free memory; 0 means none: they are read from the disk for each batch)"
        },
    )
    cache_train_on_average: bool = field(
        default=False,
        metadata={
            "help": "train a refreshed pair on its moving average (Eq. 2), not on the ascent's result (Algorithm 3)"
        },
    )
    cache_train_on_last_pass: bool = field(
        default=False,
        metadata={
            "help": "train a refreshed pair on the ascent's last pass, at x + delta of S-1 steps, whose backward pass "
            "also makes the step to what is cached: 2 units less in a refresh (the paper's count of (1+S) passes; ours)"
        },
    )
    cache_refresh: ChoiceEnum(["all", "cached"]) = field(  # type: ignore[valid-type]
        default="all",
        metadata={
            "help": "pairs whose perturbation is sought by an ascent in a refresh: all (the paper), or those of the "
            "cache set, while the others are served from the generation before (ours, cheaper; the first refresh has "
            "none and takes all)"
        },
    )
    cache_takeover: bool = field(
        default=False, metadata={"help": "take the cache directory from another run that holds it; that run will stop"}
    )
    neighbor_rescale: bool = field(
        default=False,
        metadata={"help": "give a perturbation built from neighbors their mean sentence norm (the paper does not)"},
    )


def check_arch(cfg: ArchConfig) -> None:
    """Refuse impossible values before any training."""
    check_ascent(cfg)
    whole = math.isinf(cfg.cache_interval) or cfg.cache_interval == int(cfg.cache_interval)
    rule = "a whole number of epochs >= 1, or inf (refresh once)"
    require(whole and cfg.cache_interval >= 1, "--cache-interval", rule, cfg.cache_interval)
    require(0 <= cfg.cache_ema < 1, "--cache-ema", "in [0, 1)", cfg.cache_ema)
    require(0 < cfg.cache_proportion <= 1, "--cache-proportion", "in (0, 1]", cfg.cache_proportion)
    require(cfg.cache_num_neighbors >= 1, "--cache-num-neighbors", ">= 1", cfg.cache_num_neighbors)
    if cfg.cache_train_on_last_pass:
        _check_last_pass(cfg)


def _check_last_pass(cfg: ArchConfig) -> None:
    require(cfg.adv_steps >= 1, "--adv-steps", ">= 1 with --cache-train-on-last-pass", cfg.adv_steps)
    for option, value, reason in (
        ("adv_gradient", "raw", "the gradient comes from the training's backward pass, in the units of its loss scale"),
        ("adv_objective", "perturbed", "its backward pass has the gradient of the cross-entropy too"),
        ("cache_train_on_average", "True", "the average is known after the pass alone"),
    ):
        if str(getattr(cfg, option)) == value:
            words = f"--{option.replace('_', '-')}" + ("" if value == "True" else f" {value}")
            raise ValueError(f"--cache-train-on-last-pass must be left out with {words}: {reason}")
