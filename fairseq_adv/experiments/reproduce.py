"""``fairseq-adv reproduce``: the papers' tables and figures, each from one grid of trainings.

Grids share their runs: a variant that is in two figures is trained once. As all grids here they can be interrupted.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

from fairseq_adv.experiments.commands import losses
from fairseq_adv.experiments.grid_corpora import Corpus, PreparedFolder, Recipe, Variant, parse_variant
from fairseq_adv.experiments.jobs import Command, Run, finish
from fairseq_adv.experiments.reproduce_results import publish
from fairseq_adv.papers.results import Batch, Result, by_name, results


@dataclass(frozen=True)
class Reproduction:
    """The options of the command."""

    names: Sequence[str] = field(
        metadata={"help": "LIST prints them all; or names such as arch-fig2a", "positional": True, "metavar": "NAME"}
    )
    corpus: str = field(
        default="work/en-de-1000", metadata={"help": "folder that the quickstart prepared, or a recipe in quotes"}
    )
    seeds: Sequence[int] = field(default=(1, 2, 3), metadata={"help": "seeds"})
    epochs: int = field(default=40, metadata={"help": "budget of each run"})
    base_tokens: int = field(default=256, metadata={"help": "target tokens of ConAdv's base batch"})
    lr: float = field(default=0.003, metadata={"help": "learning rate at the base batch"})
    warmup_updates: int = field(default=100, metadata={"help": "warm-up at the base batch, in updates"})
    factors: Sequence[int] = field(
        default=(1, 4),
        metadata={"help": "ConAdv's batches, as multiples of the base batch; the rate grows by the root"},
    )
    radii: Sequence[float] = field(
        default=(0.05, 0.1, 0.2), metadata={"help": "radii p of ConAdv's Table 5, in units of the word embeddings"}
    )
    evaluate: str = field(
        default="", metadata={"help": "options of fairseq-adv evaluate in quotes, for a prepared folder"}
    )
    jobs: int = field(default=1, metadata={"help": "runs at a time"})
    devices: Sequence[int] = field(default=(), metadata={"help": "numbers of the GPUs that runs may use"})

    def __post_init__(self) -> None:
        for name in ("epochs", "base_tokens", "warmup_updates", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in ("factors", "radii"):
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"--{name} must be > 0, got {min(getattr(self, name)):g}")
        known = by_name(self.batch)
        unknown = [name for name in self.names if name not in known and name != "LIST"]
        if unknown:
            raise ValueError(f"unknown result {unknown[0]!r}: choose among {', '.join(known)}, or LIST")

    @property
    def batch(self) -> Batch:
        return Batch(self.base_tokens, self.lr, self.warmup_updates, tuple(self.factors), tuple(self.radii))

    @property
    def wanted(self) -> List[Result]:
        known = by_name(self.batch)
        return [known[name] for name in self.names if name != "LIST"]


def corpus_of(options: Reproduction, result: Result, for_all: Sequence[str]) -> Corpus:
    """Where *result* is trained; its options of training come after those *for_all* results."""
    train_options = [*for_all, *result.train_options]
    words = options.corpus.split()
    if words and words[0].endswith(".sh"):
        return Recipe([*words, "--epochs", str(options.epochs)], train_options)
    path = Path(options.corpus).absolute()
    output = path / f"reproduce-epochs{options.epochs}"
    return PreparedFolder(path, options.epochs, train_options, output, options.evaluate.split())


def commands(corpus: Corpus, variant: Variant, seed: int, with_losses: bool) -> Iterator[Command]:
    """Train, score, and where a table needs it validate on the training and the test set too."""
    yield from corpus.commands(variant, seed)
    if with_losses and isinstance(corpus, PreparedFolder):
        yield from losses(corpus.path / "bin", corpus.folder(variant, seed), "train,valid,test")


def planned(
    options: Reproduction, for_all: Sequence[str]
) -> Tuple[List[Run], Dict[str, List[Tuple[Variant, int, Path]]]]:
    """The runs of all wanted results, each once, whole seeds first; and the cells of each result."""
    runs: Dict[Path, Run] = {}
    cells: Dict[str, List[Tuple[Variant, int, Path]]] = {}
    for seed in options.seeds:
        for result in options.wanted:
            corpus = corpus_of(options, result, for_all)
            for variant in map(parse_variant, result.variants):
                folder = corpus.folder(variant, seed)
                with_losses = result.show == "gap"
                if folder not in runs or with_losses:
                    runs[folder] = Run(folder, partial(commands, corpus, variant, seed, with_losses))
                cells.setdefault(result.name, []).append((variant, seed, folder))
    return list(runs.values()), cells


def prepare(options: Reproduction, for_all: Sequence[str]) -> None:
    """Neighbour files and the data of recipes. Raises ``ValueError`` with what failed."""
    done = set()
    for result in options.wanted:
        corpus = corpus_of(options, result, for_all)
        for command in corpus.prepare([parse_variant(text) for text in result.variants], options.seeds):
            words = [str(word) for word in command]
            if tuple(words) not in done and subprocess.run(words, check=False).returncode != 0:
                raise ValueError(f"{' '.join(words)} failed: see above")
            done.add(tuple(words))


def listing(batch: Batch) -> str:
    """Every name with what it shows and how many variants it trains."""
    return "\n".join(f"{r.name:15} {r.what} ({len(r.variants)} variants)" for r in results(batch))


def reproduce(options: Reproduction, for_all: Sequence[str] = ()) -> int:
    """Train what is left of the wanted results and publish each; the exit status of the grid.

    *for_all* are options of ``fairseq-train`` for every run.
    """
    if "LIST" in options.names:
        print(listing(options.batch))
        return 0
    prepare(options, for_all)
    runs, cells = planned(options, for_all)
    status = finish(runs, "fairseq-adv reproduce", options.jobs, options.epochs, options.devices)
    if status == 130:
        return status
    for result in options.wanted:
        folder = corpus_of(options, result, for_all).report_folder().with_name(result.name)
        print(publish(result, cells[result.name], folder), end="")
        sys.stdout.flush()
    return status
