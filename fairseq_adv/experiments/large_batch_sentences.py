"""``fairseq-adv study large-batch-sentences``: is the accuracy of a small batch reached sooner at a large one?

ScaLA's question (Zhang et al. 2022). Every method and batch trains for the same epochs at the rates of a small grid;
the rate is chosen on the validation set with the first seed. The target is what plain training at the smallest batch
reaches on the validation set; what counts is when a run's validation first reaches it, in updates and in seconds.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

from fairseq_adv.experiments.grid_corpora import Recipe, Variant
from fairseq_adv.experiments.jobs import Run, finish
from fairseq_adv.experiments.large_batch import method_and_batches
from fairseq_adv.experiments.large_batch_sentences_results import CLOCKS, Found, publish
from fairseq_adv.experiments.sentence_results import read_run, to_choose_by
from fairseq_adv.experiments.sentence_study import prepare, refuse_missing

SCRIPT = "fairseq-adv study large-batch-sentences"
OPTIONS: Dict[str, Sequence[str]] = {
    "plain": (),
    "lamb": ("--optimizer", "adv_lamb", "--lamb-betas", "(0.9, 0.98)", "--lamb-weight-decay", "0.01"),
    "scala": ("--scala-radius", "{radius}", "--scala-step-size", "{radius}"),
    "disadv": ("--disadv-alpha", "{radius}"),
    "conadv": ("--conadv-alpha", "{radius}"),
    "r3f": ("--r3f-sigma", "{sigma}"),
}


@dataclass(frozen=True)
class LargeBatchSentences:
    """The options of the study."""

    recipe: str = field(
        metadata={"help": "recipe with its options, in quotes", "positional": True, "metavar": "RECIPE"}
    )
    methods: Sequence[str] = field(
        default=tuple(OPTIONS),
        metadata={"help": "what to train; each perhaps with batches of its own", "metavar": "METHOD[:B,B]"},
    )
    batches: Sequence[int] = field(default=(32, 128, 512, 1024), metadata={"help": "rows of an update"})
    rates: Sequence[str] = field(
        default=("1e-4", "2e-4", "4e-4", "8e-4"), metadata={"help": "Adam's learning rates to choose from"}
    )
    lamb_rates: Sequence[str] = field(
        default=("1e-3", "2e-3", "4e-3", "8e-3"), metadata={"help": "LAMB's learning rates to choose from"}
    )
    seeds: Sequence[int] = field(default=(1, 2, 3), metadata={"help": "seeds; rates are chosen on the first"})
    epochs: int = field(default=4, metadata={"help": "epochs of each run"})
    validations: int = field(default=4, metadata={"help": "validations of an epoch, where it has as many updates"})
    radius: float = field(default=0.1, metadata={"help": "radius of a row's perturbation, of scala, disadv and conadv"})
    sigma: float = field(default=0.01, metadata={"help": "size of r3f's noise for each coordinate"})
    slack: float = field(
        default=0.0,
        metadata={"help": "points that a run may be below plain's mean at the smallest batch to have reached it"},
    )
    clock: str = field(
        default="wall",
        metadata={
            "help": "seconds to compare: wall, or cpu where others use the machine too (a run's CPU time, by the share "
            "of its updates)",
            "choices": list(CLOCKS),
        },
    )
    jobs: int = field(default=1, metadata={"help": "runs at a time"})
    devices: Sequence[int] = field(default=(), metadata={"help": "numbers of the GPUs that runs may use"})

    def __post_init__(self) -> None:
        for name in ("epochs", "validations", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.slack < math.inf:
            raise ValueError(f"--slack must be finite and at least 0, got {self.slack}")
        smallest = self.cells[0][0]
        if smallest < 1:
            raise ValueError(f"--batches must be at least 1, got {smallest}")
        if (smallest, "plain") not in self.cells:
            raise ValueError("--methods must have plain at the smallest batch: its accuracy there is the target")
        refuse_missing([self.recipe])

    @property
    def cells(self) -> List[Tuple[int, str]]:
        """(batch, method) of each cell, each once, by growing batch."""
        named = [method_and_batches(text, tuple(OPTIONS), "BATCH") for text in self.methods]
        cells = dict.fromkeys((batch, method) for method, own in named for batch in own or self.batches)
        return sorted(cells, key=lambda cell: cell[0])

    def rates_of(self, method: str) -> Sequence[str]:
        return self.lamb_rates if method == "lamb" else self.rates


class Setting(NamedTuple):
    """One run but for its seed: *method* at *batch* rows and the learning rate *rate*."""

    method: str
    batch: int
    rate: str

    def recipe(self, study: LargeBatchSentences) -> Recipe:
        words = [*study.recipe.split(), "--batch", str(self.batch), "--lr", self.rate, "--epochs", str(study.epochs)]
        return Recipe(words, [])

    def variant(self, study: LargeBatchSentences, rows: int) -> Variant:
        """Validated *study.validations* times in an epoch of *rows*."""
        criterion = "plain" if self.method == "lamb" else self.method
        values = {"radius": study.radius, "sigma": study.sigma}
        options = [word.format(**values) for word in OPTIONS[self.method]]
        every = max(1, math.ceil(rows / self.batch) // study.validations)
        return Variant(
            f"{self.method}-batch{self.batch}-lr{self.rate}-epochs{study.epochs}",
            criterion,
            [*options, "--validate-interval-updates", str(every)],
        )


def grid(study: LargeBatchSentences) -> List[Setting]:
    """Every method, batch and rate, by growing batch."""
    return [Setting(method, batch, rate) for batch, method in study.cells for rate in study.rates_of(method)]


def run_study(study: LargeBatchSentences) -> int:
    """Choose each cell's rate on the first seed, train the other seeds, publish; the exit status of :func:`finish`."""
    recipe = Recipe([*study.recipe.split(), "--epochs", str(study.epochs)], [])
    prepare(recipe, [], study.seeds)
    data = recipe.runs_folder().parent
    rows = int(json.loads((data / "bin/set.json").read_text(encoding="utf-8"))["rows"]["train"])

    def folder(setting: Setting, seed: int) -> Path:
        return setting.recipe(study).folder(setting.variant(study, rows), seed)

    def work(settings: Sequence[Setting], seeds: Sequence[int]) -> int:
        made = [(s, s.recipe(study), s.variant(study, rows), seed) for seed in seeds for s in settings]
        runs = [Run(folder(s, seed), partial(r.commands, v, seed)) for s, r, v, seed in made]
        return finish(runs, SCRIPT, study.jobs, study.epochs, study.devices)

    first = study.seeds[0]
    status = work(grid(study), [first])
    if status:
        return status
    best = chosen(grid(study), {s: read_run(folder(s, first)).scores["valid"] for s in grid(study)})
    status = work(best, study.seeds)
    if status:
        return status
    found = [Found(s.method, s.batch, s.rate, seed, folder(s, seed)) for s in best for seed in study.seeds]
    print(publish(found, data / "large-batch", study.clock, study.slack), end="")
    return 0


def chosen(settings: Sequence[Setting], valid: Dict[Setting, Dict[str, float]]) -> List[Setting]:
    """Of each method and batch the rate that is best on the validation set, by the set's first metric."""
    best: Dict[object, Setting] = {}
    for setting in settings:
        cell = (setting.method, setting.batch)
        if cell not in best or to_choose_by(valid[setting]) > to_choose_by(valid[best[cell]]):
            best[cell] = setting
    return list(best.values())
