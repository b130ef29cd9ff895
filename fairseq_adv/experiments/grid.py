"""Train and score variants × seeds × corpora, several at a time, and compare them.

A corpus is a folder that the quickstart prepared, or a recipe in quotes with its options, such as
"examples/translation/iwslt14-de-en.sh --reverse". A variant is a criterion by its NAME in NAME_label_smoothed, plain,
or NAME=METHOD OPTIONS; {seed} in the options stands for the seed.

Interrupt or kill it when you like, even with kill -9: the same command goes on, finished runs are not repeated, an
interrupted training goes on from its last epoch, and what a kill left running is waited for, not disturbed. A run that
fails does not stop the others. With --slurm each run is a job of a cluster, which queues itself again where it is
preempted or its time is up. Ends with the table of results, the paired bootstrap against the baseline, and a report.
"""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import List, Optional, Sequence

from fairseq_adv.experiments.commands import FAIRSEQ_ADV
from fairseq_adv.experiments.grid_corpora import Corpus, PreparedFolder, Recipe, Variant, parse_variant
from fairseq_adv.experiments.jobs import Run, finish
from fairseq_adv.experiments.slurm import Jobs, parse_parameters

UNLIMITED = 100_000  # epochs, where the clock ends a training


@dataclass(frozen=True)
class Grid:
    """The options of the command."""

    corpora: Sequence[str] = field(
        metadata={
            "positional": True,
            "metavar": "CORPUS",
            "help": "folder that quickstart.sh prepared, or a recipe in quotes",
        }
    )
    variants: Sequence[str] = field(
        metadata={"metavar": "VARIANT", "help": "METHOD, or NAME=METHOD OPTIONS in quotes; {seed} stands for the seed"}
    )
    seeds: Sequence[int] = field(default=(1,), metadata={"help": "seeds"})
    epochs: Optional[int] = field(default=None, metadata={"help": "budget of each run (default: 60, or the recipe's)"})
    minutes: Optional[float] = field(
        default=None,
        metadata={"help": "budget of each run in wall clock instead of epochs, validations included"},
    )
    jobs: Optional[int] = field(
        default=None, metadata={"help": "runs at a time (default: one for each device, all with --slurm, else 1)"}
    )
    devices: Sequence[int] = field(
        default=(), metadata={"metavar": "GPU", "help": "numbers of the GPUs that runs may use"}
    )
    slurm: Sequence[str] = field(
        default=(),
        metadata={
            "metavar": "KEY=VALUE",
            "help": "make each run a job of SLURM; these go to submitit, such as timeout_min=600 gpus_per_node=1 "
            "slurm_partition=gpu (cluster=local tries it on this machine)",
        },
    )
    baseline: Optional[str] = field(default=None, metadata={"help": "variant to compare with (default: the first)"})
    output: Optional[Path] = field(
        default=None, metadata={"help": "folder of the runs of a prepared folder (default: CORPUS/runs-epochsN)"}
    )
    evaluate: str = field(
        default="",
        metadata={"metavar": "OPTIONS", "help": "of fairseq-adv evaluate in quotes, for prepared folders"},
    )
    no_comparison: bool = field(default=False, metadata={"help": "train and score only: no tables, no report"})

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.parsed]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"--variants has {twice} twice: give one of them another name, NAME=METHOD OPTIONS")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds has a seed twice: {' '.join(map(str, self.seeds))}")
        for option in ("epochs", "jobs"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"--{option} must be at least 1, got {value}")
        if self.minutes is not None and (self.epochs is not None or not 0 < self.minutes < math.inf):
            raise ValueError(f"--minutes must be a positive number, without --epochs, got {self.minutes}")
        if self.devices and self.at_a_time > len(self.devices):
            raise ValueError(f"--jobs {self.jobs} is more than the {len(self.devices)} --devices: each run takes one")
        if self.devices and self.slurm:
            raise ValueError("--devices are those of this machine: with --slurm, gpus_per_node=1 gives each run one")
        parse_parameters(self.slurm)
        if self.compared_with not in names:
            raise ValueError(f"--baseline {self.baseline} is none of the variants: {', '.join(names)}")
        if self.output and len(self.corpora) > 1:
            raise ValueError("--output takes one corpus: without it each corpus has a folder of its own")

    @property
    def parsed(self) -> List[Variant]:
        return [parse_variant(text) for text in self.variants]

    @property
    def at_a_time(self) -> int:
        everything = len(self.corpora) * len(self.variants) * len(self.seeds)
        return self.jobs or (everything if self.slurm else max(1, len(self.devices)))

    @property
    def compared_with(self) -> str:
        """The variant that the others are compared with."""
        return self.baseline or self.parsed[0].name

    def corpus(self, text: str, train_options: Sequence[str]) -> Corpus:
        """One of the corpora; *train_options* are for all runs. Raises ``ValueError`` if it is not there."""
        options = [*train_options, *(["--stop-time-hours", str(self.minutes / 60)] if self.minutes else [])]
        words = text.split()
        if words and words[0].endswith(".sh"):
            if not Path(words[0]).is_file():
                raise ValueError(f"there is no recipe {words[0]}")
            limit = UNLIMITED if self.minutes else self.epochs
            return Recipe([*words, *(["--epochs", str(limit)] if limit else [])], options)
        path, epochs = Path(text).absolute(), UNLIMITED if self.minutes else self.epochs or 60
        budget = f"minutes{self.minutes:g}" if self.minutes else f"epochs{epochs}"
        output = self.output or path / f"runs-{budget}"
        return PreparedFolder(path, epochs, options, output, self.evaluate.split())


def prepare(corpora: Sequence[Corpus], variants: Sequence[Variant], seeds: Sequence[int]) -> None:
    """Prepare each corpus. Raises ``ValueError`` that says what lacks or failed."""
    for corpus in corpora:
        for command in corpus.prepare(variants, seeds):
            done = subprocess.run([str(word) for word in command], check=False)
            if done.returncode != 0:
                told = " ".join(map(str, command))
                raise ValueError(f"{corpus.label}: {told} failed with status {done.returncode}")


def compare(corpus: Corpus, folders: Sequence[Path], baseline: str) -> None:
    """The results' table with a report, then the paired bootstrap."""
    report = corpus.report_folder()
    print(f"\n{corpus.label}: {report / 'index.html'}", flush=True)
    runs = list(map(str, folders))
    subprocess.run([*FAIRSEQ_ADV, "report", *runs, "--output", str(report), "--title", corpus.label], check=True)
    print(flush=True)
    subprocess.run([*FAIRSEQ_ADV, "compare", *runs, "--baseline", baseline], check=True)


def runs_of(corpus: Corpus, variants: Sequence[Variant], seeds: Sequence[int]) -> List[Run]:
    """The runs of one corpus, all variants of a seed before the next seed: an early stop leaves whole seeds."""
    cells = [(variant, seed) for seed in seeds for variant in variants]
    return [Run(corpus.folder(v, s), partial(corpus.commands, v, s)) for v, s in cells]


def run_grid(grid: Grid, train_options: Sequence[str] = ()) -> int:
    """Train, score and compare what is left; the exit status of :func:`finish`."""
    corpora = [grid.corpus(text, train_options) for text in grid.corpora]
    prepare(corpora, grid.parsed, grid.seeds)
    grids = [(corpus, runs_of(corpus, grid.parsed, grid.seeds)) for corpus in corpora]
    runs = [run for _, runs_of_corpus in grids for run in runs_of_corpus]
    launcher = Jobs(runs[0].folder.parent / "slurm", parse_parameters(grid.slurm)) if grid.slurm else None
    status = finish(runs, "fairseq-adv grid", grid.at_a_time, grid.epochs, grid.devices, launcher)
    if status == 130:
        return status
    for corpus, runs in grids:
        scored = [run.folder for run in runs if (run.folder / "score.json").is_file()]
        has_baseline = any(folder.name.rpartition("-seed")[0] == grid.compared_with for folder in scored)
        if has_baseline and not grid.no_comparison:
            compare(corpus, scored, grid.compared_with)
    return status
