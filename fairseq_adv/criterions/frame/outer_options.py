"""Which options on the passes of the loss go together."""

from __future__ import annotations

from fairseq_adv.criterions.frame.config import AdversarialConfig, require

# what --adv-fraction cannot have some rows of a batch do, and why
_WHOLE_BATCH = (
    ("adv_passes", "concat", "the clean rows and the perturbed ones are as many in one pass"),
    ("adv_outer_masks", "shared", "a pass over fewer rows draws masks of its own"),
    ("adv_objective", "perturbed", "rows that are not perturbed would not be trained"),
)


def check_outer_passes(cfg: AdversarialConfig) -> None:
    """Refuse options of :class:`AdversarialConfig` that exclude each other, before any training."""
    passes, objective = str(cfg.adv_passes), str(cfg.adv_objective)
    if passes == "concat" and str(cfg.adv_outer_masks) == "shared":
        raise ValueError(
            "--adv-outer-masks shared needs --adv-passes sequential: in one pass each row draws masks of its own"
        )
    if passes == "recompute" and (cfg.adv_detach_clean or objective == "perturbed"):
        option = "--adv-detach-clean" if cfg.adv_detach_clean else "--adv-objective perturbed"
        raise ValueError(
            f"--adv-passes recompute must be left out with {option}: one graph at a time is held there in any case, "
            "without another pass"
        )
    if objective == "perturbed" and passes == "concat":
        raise ValueError(
            "--adv-objective perturbed needs --adv-passes sequential: the clean pass has no backward pass, and one "
            "pass over twice the rows cannot leave it out for half of them"
        )
    require(0 < cfg.adv_fraction <= 1, "--adv-fraction", "in (0, 1]", cfg.adv_fraction)
    for option, value, reason in _WHOLE_BATCH:
        if cfg.adv_fraction < 1 and str(getattr(cfg, option)) == value:
            words = f"--{option.replace('_', '-')} {value}"
            raise ValueError(f"--adv-fraction must be 1 with {words}, got {cfg.adv_fraction}: {reason}")
