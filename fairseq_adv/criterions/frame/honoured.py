"""Which common options a method honours: all but those that this table names, which are refused with the reason."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Dict, Iterator, Tuple

from omegaconf import OmegaConf

_NO_DIVERGENCE = "its loss has no divergence from a clean output"
_FIRST_CLEAN = "its perturbation comes from the clean output, whose pass must come first"
_ONE_GRAPH = "its passes are propagated back one after the other in any case"
_BOTH_TRAINED = "the loss at x + δ takes the place of its clean loss in each row"
_NO_START = "it has no random start"

ANY = "all"  # methods

# option -> method -> why it would do nothing (or what it would break). "option=value" is about this value alone. A
# method's name may be followed by values of its other options, for which alone the entry holds.
NOT_HONOURED: Dict[str, Dict[str, str]] = {
    "adv_sides": {"rdrop": "R-Drop perturbs neither side"},
    "adv_divergence": {
        **dict.fromkeys(("freelb", "freeat", "disadv", "conadv"), _NO_DIVERGENCE),
        f"{ANY} regression_target=True": "the divergence of numbers is (f(x) - f(x + δ))²",
    },
    "adv_detach_clean": {
        **dict.fromkeys(("freelb", "freeat", "disadv", "conadv"), _NO_DIVERGENCE),
        "scala scala_loss=ce": "its clean output is held fixed in any case",
    },
    "adv_outer_masks": {
        "rdrop": "R-Drop compares two sets of masks",
        "freelb": "all its passes share the masks of the first",
        "freeat": "it has one pass",
    },
    "adv_passes=concat": dict.fromkeys(("smart", "vat", "scala"), _FIRST_CLEAN),
    "adv_passes=recompute": dict.fromkeys(("conadv", "scala scala_loss=ce"), _ONE_GRAPH),
    "adv_passes": {
        "disadv": "its perturbation comes from the backward pass of the clean one",
        "freelb": "each of its passes needs the backward pass of the one before",
        "freeat": "it has one pass",
    },
    "adv_fraction": {
        **dict.fromkeys(("freelb", "freeat", "disadv", "conadv"), _BOTH_TRAINED),
        "scala scala_loss=ce": "the backward pass of its clean output perturbs all rows in any case",
    },
    "adv_radius_schedule": {
        "rdrop": "R-Drop has no perturbation",
        "simcut": "a cutoff has no radius",
    },
    "adv_preset": dict.fromkeys(("freelb", "freeat"), "the presets are of ARCH's ascent on a divergence"),
    "adv_every": {"freeat": "its replays come in a row"},
    "adv_seed": {
        **dict.fromkeys(("rdrop", "disadv"), _NO_START),
        "conadv conadv_start_norm=0.0": _NO_START,
    },
}


def refuse_not_honoured(method: str, cfg: Any) -> None:
    """Raise ``ValueError`` for the first option of *cfg* that has been given and does nothing for *method*."""
    defaults = {f.name: f.default for f in fields(OmegaConf.get_type(cfg) or type(cfg))}
    for option, reason in not_honoured_by(method, cfg):
        value = getattr(cfg, option)
        if str(value) != str(defaults[option]):
            raise ValueError(f"--{option.replace('_', '-')} must be left out: {reason}, got {value}")


def not_honoured_by(method: str, cfg: Any) -> Iterator[Tuple[str, str]]:
    """The options that do nothing for *method* under the other options of *cfg*, with the reason of each.

    An option may come more than once.
    """
    for key, methods in NOT_HONOURED.items():
        option = key.split("=")[0]
        if "=" in key and not _is_set(cfg, key):
            continue
        for entry, reason in methods.items():
            name, *settings = entry.split()
            if name in (method, ANY) and all(_is_set(cfg, setting) for setting in settings):
                yield option, reason


def _is_set(cfg: Any, setting: str) -> bool:
    option, value = setting.split("=")
    return str(getattr(cfg, option, None)) == value
