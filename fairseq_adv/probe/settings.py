"""What ``fairseq-adv probe`` measures and how: one field for each option."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Sequence

from fairseq_adv.probe.noisy_text import NOISES

MEASURES = ("worst", "random", "noise", "sharpness")


def _told(default: Any, words: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": words, **more})


@dataclass(frozen=True)
class ProbeSettings:
    """Everything that decides the numbers beside checkpoint and data."""

    measure: Sequence[str] = _told(
        MEASURES,
        "worst: input moved by the worst perturbation of a radius; random: by a random one; noise: typing errors in "
        "the source; sharpness: the loss around the parameters",
        choices=MEASURES,
    )
    subsets: Sequence[str] = _told(("valid", "test"), "subsets for loss and BLEU")
    radii: Sequence[float] = _told(
        (0.1, 0.5, 1.0, 2.0),
        "norms of the perturbation of a sentence's word embeddings, for each side, in units of the raw embeddings",
    )
    steps: int = _told(5, "ascent steps of the worst case")
    noise: Sequence[str] = _told(tuple(NOISES), "kinds of typing errors", choices=tuple(NOISES))
    rates: Sequence[float] = _told((0.02, 0.05, 0.1), "probabilities that a letter is hit by one")
    sharpness_subset: str = _told("train", "subset whose loss is looked at around the parameters")
    sharpness_sentences: int = _told(256, "pairs of it, drawn at random")
    iterations: int = _told(50, "Hessian-vector products for the largest eigenvalue, at most")
    sam_radii: Sequence[float] = _told((0.05, 0.2, 0.5), "radii rho of SAM's step, in units of the parameters")
    directions: int = _told(3, "random lines through the parameters")
    distance: float = _told(1.0, "how far lines and plane go, as a share of the norm of each filter")
    points: int = _told(21, "points on a line, an odd number")
    plane: int = _told(0, "points on each side of a plane, an odd number (0: no plane)")
    beam: int = _told(1, "beam of the translations (1: greedy)")
    no_bleu: bool = _told(False, "losses only, no translations")
    lowercase: bool = _told(False, "BLEU ignores case")
    seed: int = _told(1, "of noise, random perturbations and directions")
    max_tokens: int = _told(4096, "tokens of a batch; only memory and speed depend on it")

    def __post_init__(self) -> None:
        for name in ("steps", "sharpness_sentences", "iterations", "directions", "beam", "max_tokens"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("radii", "sam_radii"):
            self._require(min(getattr(self, name)) > 0, name, "> 0")
        self._require(all(0 <= rate <= 1 for rate in self.rates), "rates", "in [0, 1]")
        self._require(self.distance > 0, "distance", "> 0")
        self._require(self.points >= 3 and self.points % 2 == 1, "points", "an odd number from 3 on")
        self._require(self.plane == 0 or (self.plane >= 3 and self.plane % 2 == 1), "plane", "0 or odd, from 3 on")

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise ValueError(f"--{name.replace('_', '-')} must be {rule}, got {getattr(self, name)}")
