"""The rows of ``step_time.py``: each method with its options, and the same with the vocabulary fused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Sequence


@dataclass(frozen=True)
class Variant:
    """One row: a criterion with options; ``cached`` measures it in the epoch after the first refresh."""

    name: str
    criterion: str
    options: Sequence[str] = ()
    cached: bool = False
    task: str = "translation"


NO_ASCENT = ("--adv-steps", "0")  # what fills the cache matters not
SECOND_REFRESH = ("--cache-interval", "1", "--cache-refresh", "cached")

VARIANTS = [
    Variant("plain", "label_smoothed_cross_entropy"),
    Variant("r3f", "r3f_label_smoothed"),
    Variant("rdrop", "rdrop_label_smoothed"),
    Variant("simcut", "simcut_label_smoothed"),
    Variant("vat", "vat_label_smoothed"),
    Variant("smart S=3", "smart_label_smoothed"),
    Variant("freelb K=3", "freelb_label_smoothed"),
    Variant("disadv", "disadv_label_smoothed"),
    Variant("conadv lookahead", "conadv_label_smoothed", task="adversarial_translation"),
    Variant("conadv shifted", "conadv_label_smoothed", ("--conadv-mode", "shifted")),
    Variant("freeat", "freeat_label_smoothed", task="adversarial_translation"),
    Variant("scala kl", "scala_label_smoothed"),
    Variant("scala ce", "scala_label_smoothed", ("--scala-loss", "ce")),
    Variant("arch refresh S=3", "arch_label_smoothed"),
    Variant("arch refresh, last pass", "arch_label_smoothed", ("--cache-train-on-last-pass",)),
    Variant("arch refresh, cached pairs", "arch_label_smoothed", SECOND_REFRESH, cached=True),
    Variant("arch cached", "arch_label_smoothed", NO_ASCENT, cached=True),
    Variant("arch cached, half of the rows", "arch_label_smoothed", (*NO_ASCENT, "--adv-fraction", "0.5"), cached=True),
    Variant("arch cached, recompute", "arch_label_smoothed", (*NO_ASCENT, "--adv-passes", "recompute"), cached=True),
    Variant("arch cached, concat", "arch_label_smoothed", (*NO_ASCENT, "--adv-passes", "concat"), cached=True),
    Variant("arch cached, detached", "arch_label_smoothed", (*NO_ASCENT, "--adv-detach-clean"), cached=True),
    Variant("arch cached, perturbed", "arch_label_smoothed", (*NO_ASCENT, "--adv-objective", "perturbed"), cached=True),
]


def fused(variant: Variant) -> Variant:
    """The same with ``--adv-vocabulary fused``; plain training by the criterion that has it."""
    criterion = "plain_label_smoothed" if variant.name == "plain" else variant.criterion
    options = (*variant.options, "--adv-vocabulary", "fused")
    return replace(variant, name=f"{variant.name}, fused", criterion=criterion, options=options)


def chosen(names: Sequence[str], with_fused: bool) -> List[Variant]:
    """Plain training, then the rows of these *names* (all, if there are none), each followed by its fused one."""
    kept = [variant for variant in VARIANTS if variant.name == "plain" or not names or variant.name in names]
    return [each for variant in kept for each in ((variant, fused(variant)) if with_fused else (variant,))]


def named(name: str) -> Variant:
    """The row of this *name*, fused or not."""
    return next(variant for variant in chosen((), with_fused=True) if variant.name == name)
