"""``--adv-preset``: the values that papers trained with, for options that are at their defaults."""

from __future__ import annotations

import logging
import math
from dataclasses import fields
from typing import Any, Dict

from omegaconf import OmegaConf

logger = logging.getLogger(__name__)

# A preset gives an option its value where the option is at its default. paper: ARCH, appendix B.1 and Sec. 3.1;
# release: the authors' public code; arch-b2: appendix B.2. fairseq_adv.papers.values says where each value stands.
PRESETS: Dict[str, Dict[str, Any]] = {
    "paper": {
        "adv_divergence": "kl",
        "adv_eps": 0.1,
        "adv_norm": "l2",
        "adv_level": "sentence",
        "adv_init": "uniform",
        "adv_gradient": "normalised",
        "adv_steps": 3,
        "adv_step_size": 0.1,
        "cache_interval": 15.0,
        "cache_ema": 0.01,
        "cache_num_neighbors": 1,
    },
    "release": {
        "adv_divergence": "sym-kl",
        "adv_detach_clean": True,
        "adv_eps": 0.3,
        "adv_steps": 2,
        "adv_step_size": 1e-4,
    },
    "arch-b2": {
        "adv_eps": 1.0,
        "adv_norm": "linf",
        "adv_level": "word",
        "adv_init": "normal",
        "adv_init_sigma": 1e-5,
        "adv_gradient": "raw",
        "adv_steps": 1,
        "adv_step_size": 1e-4,
        "cache_interval": math.inf,
    },
}


def apply_preset(cfg: Any) -> None:
    """Give the options that are at their defaults the values of ``--adv-preset``, in *cfg* itself."""
    defaults = {f.name: f.default for f in fields(OmegaConf.get_type(cfg) or type(cfg))}
    changes = {
        name: value
        for name, value in PRESETS.get(str(cfg.adv_preset), {}).items()
        if name in defaults and str(getattr(cfg, name)) == str(defaults[name])
    }
    for name, value in changes.items():
        setattr(cfg, name, value)
    if changes:
        words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changes.items())
        logger.info("--adv-preset %s: %s", cfg.adv_preset, words)
