"""Where does a regulariser pay? Texts of several lengths × models of several sizes: ``fairseq-adv study regime``.

A cell is a text and a size. In each, plain training first runs until its BLEU on the validation set has stopped getting
better (``--patience``): the updates to its best, times ``--times``, are plain training's budget. Every method gets the
same *cost*: that number divided by its price, what one of its updates costs against a plain one. The learning rate
falls to zero within the budget, so that no run is judged in mid-course; a longer budget may still give more.

Several variants of one method, such as two dropouts, are candidates: the one of the highest BLEU on the validation set
with the first seed stands for the method in that cell. The test set is only looked at for the table.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

from fairseq_adv.experiments.commands import losses
from fairseq_adv.experiments.grid_corpora import PreparedFolder, Variant, parse_variant
from fairseq_adv.experiments.jobs import Command, Run, finish
from fairseq_adv.experiments.regime_results import Found, publish
from fairseq_adv.report.runs import load_run

SCRIPT = "fairseq-adv study regime"
UNLIMITED = 100_000  # epochs, where updates or patience end a training
WIDTH_OF_LR = 128  # --lr is for this width; others get it times √(128 / width)

# Time of an update / plain's, measured by benchmarks/step_time.py (docs/results.md); ARCH: one refresh in 15 epochs.
PRICES: Dict[str, float] = {
    "plain": 1.0,
    "r3f": 2.0,
    "rdrop": 2.0,
    "simcut": 2.0,
    "disadv": 2.0,
    "arch": 2.15,
    "vat": 2.7,
    "scala": 2.8,
    "freelb": 2.9,
    "smart": 4.2,
}
METHODS = (
    "plain=plain --dropout 0.2",
    "arch=arch --dropout 0.1",
    "rdrop=rdrop --dropout 0.1 --rdrop-alpha 5",
    "simcut=simcut --dropout 0.1 --simcut-alpha 3",
)
VALIDATION = (
    *("--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric", "--eval-bleu"),
    *("--eval-bleu-args", '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}', "--eval-bleu-remove-bpe", "sentencepiece"),
)


class Size(NamedTuple):
    """A Transformer of *layers* + *layers*, with twice the width inside its feed-forward layers and four heads."""

    layers: int
    width: int

    @classmethod
    def of(cls, text: str) -> Size:
        """``2x128``. Raises ``ValueError`` for anything else."""
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
        if not match or int(match[2]) % 4:
            raise ValueError(f"--sizes takes LAYERSxWIDTH, the width a multiple of 4, such as 2x128, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def options(self, lr: float) -> List[str]:
        """What ``fairseq-train`` gets for it."""
        words: List[object] = ["--lr", f"{lr * (WIDTH_OF_LR / self.width) ** 0.5:.3g}"]
        for side in ("encoder", "decoder"):
            words += [f"--{side}-layers", self.layers, f"--{side}-embed-dim", self.width]
            words += [f"--{side}-ffn-embed-dim", 2 * self.width]
        return [str(word) for word in words]


@dataclass(frozen=True)
class RegimeStudy:
    """The options of the study."""

    texts: Sequence[Path] = field(
        metadata={
            "help": "folders that quickstart.sh prepared, WORK/PAIR-PAIRS",
            "positional": True,
            "metavar": "TEXT",
        }
    )
    sizes: Sequence[str] = field(default=("2x128",), metadata={"help": "models", "metavar": "LAYERSxWIDTH"})
    variants: Sequence[str] = field(
        default=METHODS,
        metadata={"metavar": "VARIANT", "help": "METHOD, or NAME=METHOD OPTIONS in quotes; the first is the baseline"},
    )
    seeds: Sequence[int] = field(default=(1,), metadata={"help": "seeds; variants are chosen on the first"})
    patience: int = field(default=8, metadata={"help": "validations without a better BLEU that end the first training"})
    times: float = field(default=3.0, metadata={"help": "budget: this many times the updates to its best BLEU"})
    updates: Sequence[int] = field(
        default=(),
        metadata={
            "help": "plain training's budget in updates, one for all texts or one for each, instead of --patience"
        },
    )
    prices: Sequence[str] = field(
        default=(),
        metadata={"help": "cost of an update / a plain one, if not the method's", "metavar": "NAME:P"},
    )
    validate_interval: int = field(default=5, metadata={"help": "epochs from validation to validation"})
    lr: float = field(default=0.003, metadata={"help": f"peak learning rate at width {WIDTH_OF_LR}"})
    warmup_updates: int = field(default=200, metadata={"help": "warm-up; at most a quarter of a run"})
    output: Path = field(default=Path("work/regime"), metadata={"help": "folder of regime.md, regime.json, regime.png"})
    jobs: int = field(default=1, metadata={"help": "runs at a time"})
    devices: Sequence[int] = field(default=(), metadata={"help": "numbers of the GPUs that runs may use"})

    def __post_init__(self) -> None:
        for name in ("patience", "times", "validate_interval", "lr", "warmup_updates", "jobs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        told = " ".join(map(str, self.updates))
        if any(number < 1 for number in self.updates) or len(self.updates) not in (0, 1, len(self.texts)):
            raise ValueError(f"--updates takes a positive number for all texts or one for each, got {told}")
        names = [variant.name for variant in self.parsed]
        if len(set(names)) < len(names):
            raise ValueError(f"--variants has a name twice: {' '.join(names)}; write NAME=METHOD OPTIONS")
        self._check_prices()
        for size in self.sizes:
            Size.of(size)

    @property
    def parsed(self) -> List[Variant]:
        return [parse_variant(text) for text in self.variants]

    @property
    def price_of(self) -> Dict[str, float]:
        """Variant → its price, 0 where none is known. Raises ``ValueError`` for what is no number."""
        own = dict(text.rpartition(":")[::2] for text in self.prices)
        try:
            return {v.name: float(own.pop(v.name, PRICES.get(v.method, 0.0))) for v in self.parsed}
        except ValueError:
            raise ValueError(f"--prices takes NAME:PRICE, such as arch-2:1.6, got {' '.join(self.prices)}") from None

    def _check_prices(self) -> None:
        prices = self.price_of
        unknown = [text for text in self.prices if text.rpartition(":")[0] not in prices]
        if unknown:
            raise ValueError(f"--prices {unknown[0]} is of none of the variants: {', '.join(prices)}")
        free = next((name for name, price in prices.items() if not price > 0), None)
        if free is not None:
            raise ValueError(f"--prices has to tell what an update of {free} costs: {free}:2 is twice a plain one")

    @property
    def cells(self) -> List[Tuple[Path, str]]:
        return [(text, size) for text in self.texts for size in self.sizes]


def corpus(study: RegimeStudy, text: Path, size: str, runs: str, for_all: Sequence[str]) -> PreparedFolder:
    """The runs of one cell, in TEXT/regime/SIZE/*runs*."""
    options = [*VALIDATION, *Size.of(size).options(study.lr), "--log-interval", "50"]
    for kind in ("validate", "save"):
        options += [f"--{kind}-interval", str(study.validate_interval)]
    folder = text.absolute()
    return PreparedFolder(folder, UNLIMITED, [*options, *for_all], folder / "regime" / size / runs)


def within(study: RegimeStudy, variant: Variant, plain_updates: int) -> Variant:
    """*variant* with its share of the cell's budget, and a learning rate that falls to zero within it."""
    updates = max(1, round(plain_updates / study.price_of[variant.name]))
    warmup = max(1, min(study.warmup_updates, updates // 4))
    words = ["--max-update", updates, "--lr-scheduler", "polynomial_decay", "--total-num-update", updates]
    words += ["--warmup-updates", warmup]
    return variant._replace(options=[*map(str, words), *variant.options])


def scout(study: RegimeStudy, text: Path, size: str, for_all: Sequence[str]) -> Run:
    """The baseline until its validation BLEU stops, with the first seed; it is not scored."""
    here = corpus(study, text, size, f"patience{study.patience}", for_all)
    first = study.parsed[0]
    plain = first._replace(options=["--patience", str(study.patience), *first.options])
    folder = here.folder(plain, study.seeds[0])
    return Run(folder, lambda: iter([next(here.commands(plain, study.seeds[0]))]))


def budget(study: RegimeStudy, text: Path, size: str, for_all: Sequence[str]) -> int:
    """Plain training's updates in a cell."""
    if study.updates:
        return study.updates[study.texts.index(text) if len(study.updates) > 1 else 0]
    best = load_run(str(scout(study, text, size, for_all).folder)).best_validation
    if best is None:
        raise ValueError(f"{text}, {size}: plain training was never validated; lower --validate-interval")
    return round(study.times * best["num_updates"])


def trained(here: PreparedFolder, variant: Variant, seed: int) -> Iterator[Command]:
    """Train, score, and validate on the training set too, for the gap."""
    yield from here.commands(variant, seed)
    yield from losses(here.path / "bin", here.folder(variant, seed), "train,valid")


def found(study: RegimeStudy, for_all: Sequence[str]) -> Tuple[List[Run], List[Found]]:
    """All runs within their budgets, whole seeds first; and where the table finds them."""
    runs, places = [], []
    for seed in study.seeds:
        for text, size in study.cells:
            updates = budget(study, text, size, for_all)
            here = corpus(study, text, size, f"updates{updates}", for_all)
            for variant in study.parsed:
                limited = within(study, variant, updates)
                folder = here.folder(limited, seed)
                runs.append(Run(folder, partial(trained, here, limited, seed)))
                places.append(Found(text.name, size, variant.method, variant.name, seed, folder))
    return runs, places


def run_study(study: RegimeStudy, for_all: Sequence[str] = ()) -> int:
    """Find budgets, train and score what is left, publish and print the table; the exit status of :func:`finish`.

    *for_all* are options of ``fairseq-train`` for every run.
    """
    for text, size in study.cells:
        for command in corpus(study, text, size, "", for_all).prepare(study.parsed, study.seeds):
            if subprocess.run([str(word) for word in command], check=False).returncode != 0:
                raise ValueError(f"{' '.join(map(str, command))} failed: see above")
    if not study.updates:
        scouts = [scout(study, text, size, for_all) for text, size in study.cells]
        status = finish(scouts, SCRIPT, study.jobs, None, study.devices)
        if status:
            return status
    runs, places = found(study, for_all)
    status = finish(runs, SCRIPT, study.jobs, None, study.devices)
    if status != 130:
        print(publish(places, study.price_of, study.output), end="")
    return status
