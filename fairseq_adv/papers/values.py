"""The values of ARCH (Zuo et al. 2021) for translation, and those of its authors' public code where they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple


@dataclass(frozen=True)
class Direction:
    """One direction of Tables 2 to 4 and 7. Sizes are the paper's, in pairs; *recipe* is ours."""

    name: str
    corpus: str
    recipe: str
    reverse: bool
    beam: int
    lenpen: float
    model: str  # fairseq's --arch
    batch_tokens: str
    train: str
    valid: str
    test: str

    @property
    def command(self) -> str:
        """The recipe with the options of this direction."""
        return f"examples/translation/{self.recipe}.sh" + (" --reverse" if self.reverse else "")


BASE, SMALL, BIG = "transformer", "transformer_iwslt_de_en", "transformer_vaswani_wmt_en_de_big"
DIRECTIONS: Tuple[Direction, ...] = (
    Direction("En-Vi", "IWSLT'15", "iwslt15-en-vi", False, 10, 1.0, BASE, "64k", "133k", "768", "1268"),
    Direction("Vi-En", "IWSLT'15", "iwslt15-en-vi", True, 15, 0.3, BASE, "64k", "133k", "768", "1268"),
    Direction("En-De", "IWSLT'14", "iwslt14-de-en", True, 10, 1.5, SMALL, "64k", "161k", "7.2k", "6.7k"),
    Direction("De-En", "IWSLT'14", "iwslt14-de-en", False, 9, 1.5, SMALL, "64k", "161k", "7.2k", "6.7k"),
    Direction("En-Fr", "IWSLT'16", "iwslt16-en-fr", False, 10, 0.2, BASE, "64k", "224k", "1080", "1133"),
    Direction("Fr-En", "IWSLT'16", "iwslt16-en-fr", True, 10, 2.0, BASE, "64k", "224k", "1080", "1133"),
    Direction("En-De", "WMT'16", "wmt16-en-de", False, 4, 0.6, BIG, "450k", "4.5m", "3.0k", "3.0k"),
)

# What all directions share; for IWSLT also the epochs of Fig. 1 and the choice of the checkpoint (appendix B.1).
TRAINING: Dict[str, str] = {"--lr": "0.001", "--optimizer": "adam", "--adam-betas": "(0.9, 0.98)"}
IWSLT_EPOCHS = 150


@dataclass(frozen=True)
class MethodValue:
    """One hyper-parameter of ARCH: the field of the criterion, the paper's value and where it stands.

    *release* is the public code's value where it is known to differ.
    """

    field: str
    paper: object
    where: str
    release: Optional[object] = None

    @property
    def option(self) -> str:
        return f"--{self.field.replace('_', '-')}"


METHOD_VALUES: Tuple[MethodValue, ...] = (
    MethodValue("adv_divergence", "kl", "Sec. 3.1", "sym-kl"),
    MethodValue("adv_eps", 0.1, "B.1", 0.3),
    MethodValue("adv_norm", "l2", "B.1"),
    MethodValue("adv_level", "sentence", "B.1"),
    MethodValue("adv_init", "uniform", "B.1"),
    MethodValue("adv_gradient", "normalised", "B.1"),
    MethodValue("adv_steps", 3, "B.1", 2),
    MethodValue("adv_step_size", 0.1, "B.1", 1e-4),
    MethodValue("cache_interval", 15.0, "B.1"),
    MethodValue("cache_ema", 0.01, "B.1"),
    MethodValue("cache_num_neighbors", 1, "B.1"),
    MethodValue("cache_proportion", 0.1, "B.1"),
    MethodValue("adv_detach_clean", False, "not said; Eq. 1 has p depend on θ", True),
)
