"""The papers' tables and figures as grids of trainings: ``fairseq-adv reproduce``.

A grid is a list of variants in the notation of ``fairseq-adv grid``. Those of ConAdv train at batches that are
multiples of a base, the learning rate growing with the root of the multiple and the warm-up lasting as many epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

# Both with the one-sided divergence of ARCH's paper, which compares them under one regulariser.
ARCH, SMART = "arch=arch --adv-divergence kl", "smart=smart --adv-divergence kl"
BASELINES = ("plain", "r3f", "freelb", SMART, ARCH)
P = 0.1  # ConAdv's radius where a table has one alone
CUTOFF = "--adv-source-cutoff 0.1"


def _arch(name: str, options: str) -> str:
    return f"arch-{name}=arch --adv-divergence kl {options}"


@dataclass(frozen=True)
class Batch:
    """An update's size and what goes with it, at multiples (*factors*) of the base; *radii* are those of ConAdv's p."""

    tokens: int = 256
    lr: float = 0.003
    warmup_updates: int = 100
    factors: Tuple[int, ...] = (1, 4)
    radii: Tuple[float, ...] = (0.05, P, 0.2)

    def options(self, factor: int) -> str:
        """For ``fairseq-train`` at *factor* times the base batch."""
        rate, warmup = self.lr * factor**0.5, max(1, round(self.warmup_updates / factor))
        return f"--target-batch-tokens {self.tokens * factor} --lr {rate:g} --warmup-updates {warmup}"


@dataclass(frozen=True)
class Result:
    """One table or figure: *variants* to train, options of training for all of them, and how it is shown.

    ``show``: ``scores`` (a table of the runs), ``study`` (quality against *option*), ``gradients`` (norm and its
    variance), ``gap`` (training against test set) or ``batches`` (a table, methods against batches).
    """

    name: str
    what: str
    variants: Tuple[str, ...]
    show: str = "scores"
    option: str = ""
    train_options: Tuple[str, ...] = ("--log-interval", "1")


def _at_batches(batch: Batch, variants: Sequence[Tuple[str, str, str]]) -> Tuple[str, ...]:
    """(name, method, options) at each factor of *batch*, named NAME-xFACTOR."""
    return tuple(
        f"{name}-x{factor}={method} {batch.options(factor)} {options}".strip()
        for factor in batch.factors
        for name, method, options in variants
    )


def _conadv(radius: float, options: str = "", name: str = "") -> Tuple[str, str, str]:
    return f"conadv-p{radius:g}{name}", "conadv", f"--conadv-alpha {radius:g} {options}".strip()


_PLAIN = ("plain", "plain", "")
_CUT = ("plain-cutoff", "plain", CUTOFF)
_DISADV = (f"disadv-p{P:g}", "disadv", f"--disadv-alpha {P:g}")
_CONADV, _CONADV_CUT = _conadv(P), _conadv(P, CUTOFF, "-cutoff")
_WITH_ACCURACY = ("--log-interval", "1", "--report-accuracy")


def results(batch: Batch) -> List[Result]:
    """All of them; *batch* is the base of ConAdv's."""

    def conadv(name: str, what: str, variants: Sequence[Tuple[str, str, str]], show: str = "batches") -> Result:
        return Result(name, what, _at_batches(batch, variants), show, train_options=_WITH_ACCURACY)

    return [
        Result("arch-table2", "BLEU of five methods, mean over seeds", BASELINES),
        Result("arch-table3", "BLEU and sacreBLEU of five methods (WMT'16: --corpus its recipe)", BASELINES),
        Result("arch-fig1", "wall time of the methods", BASELINES),
        Result(
            "arch-fig2a",
            "the moving average α",
            (SMART, ARCH, _arch("ema0", "--cache-ema 0"), _arch("ema0.1", "--cache-ema 0.1")),
            "study",
            "cache_ema",
        ),
        Result(
            "arch-fig2b",
            "epochs between caching Tc",
            (SMART, ARCH, _arch("tc5", "--cache-interval 5"), _arch("tcinf", "--cache-interval inf")),
            "study",
            "cache_interval",
        ),
        Result(
            "arch-fig2c",
            "neighbours K, and a random neighbour",
            (SMART, ARCH, _arch("k5", "--cache-num-neighbors 5"), _arch("r1nn", "--cache-neighbors ''")),
            "study",
            "cache_num_neighbors",
        ),
        Result(
            "arch-fig2d",
            "the cached proportion",
            (SMART, ARCH, _arch("p0.01", "--cache-proportion 0.01"), _arch("p1", "--cache-proportion 1")),
            "study",
            "cache_proportion",
        ),
        Result("arch-fig3", "norm of the gradient and its variance", (SMART, "r3f", ARCH), "gradients"),
        conadv("conadv-table1", "scores over batches", (_PLAIN, _CUT, _DISADV, _CONADV)),
        conadv("conadv-table2", "scores over batches with data augmentation", (_PLAIN, _CUT, _CONADV_CUT)),
        conadv("conadv-table3", "training time over batches", (_PLAIN, _DISADV, _CONADV)),
        conadv("conadv-table4", "training against test set", (_PLAIN, _CONADV, _CONADV_CUT), "gap"),
        conadv(
            "conadv-table5", "scores over radii p and batches", (_PLAIN, *map(_conadv, batch.radii), _CUT, _CONADV_CUT)
        ),
    ]


def by_name(batch: Batch) -> Dict[str, Result]:
    """Name -> result."""
    return {result.name: result for result in results(batch)}
