"""What a grid can train on: a folder that ``quickstart.sh`` prepared, or a recipe of ``examples/translation``.

Both give the folder of a run and the commands that train and score it, which do nothing where they have been run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Iterator, List, NamedTuple, Protocol, Sequence

from fairseq_adv.experiments.commands import FAIRSEQ_ADV, evaluate, train_small
from fairseq_adv.experiments.jobs import Command

DEFAULT_PROPORTION = "0.1"


class Variant(NamedTuple):
    """A criterion of this project (or plain) with options of ``fairseq-train``, under a name of its own."""

    name: str
    method: str
    options: Sequence[str]

    def for_seed(self, seed: int) -> List[str]:
        return [word.replace("{seed}", str(seed)) for word in self.options]

    @property
    def proportion(self) -> str:
        """The share of pairs that ARCH caches, for which the corpus makes a neighbour file of its own."""
        return dict(zip(self.options, self.options[1:])).get("--cache-proportion", DEFAULT_PROPORTION)

    @property
    def needs_neighbors(self) -> bool:
        return self.method == "arch" and "--cache-neighbors" not in self.options


def parse_variant(text: str) -> Variant:
    """``arch``, or ``NAME=METHOD OPTIONS`` such as ``"arch-shared=arch --adv-outer-masks shared"``."""
    match = re.fullmatch(r"(?:([A-Za-z0-9_.-]+)=)?([a-z0-9_]+)((?:\s.*)?)", text.strip(), flags=re.DOTALL)
    if not match:
        raise ValueError(
            f"write METHOD or NAME=METHOD OPTIONS, such as arch-shared=arch --adv-outer-masks shared, got {text!r}"
        )
    name, method, options = match.groups()
    if options.strip() and not name:
        raise ValueError(f"{text!r} has options: give it a name of its own, such as {method}-2={text.strip()}")
    return Variant(name or method, method, shlex.split(options))


class Corpus(Protocol):
    """One text in one direction; ``label`` is how messages call it."""

    label: str

    def prepare(self, variants: Sequence[Variant], seeds: Sequence[int]) -> Iterator[Command]:
        """Commands that must have run, one after the other, before any training."""

    def folder(self, variant: Variant, seed: int) -> Path: ...

    def commands(self, variant: Variant, seed: int) -> Iterator[Command]: ...

    def report_folder(self) -> Path: ...


class PreparedFolder:
    """WORK/PAIR-PAIRS of the quickstart: ``bin/``, ``raw/`` and ``neighbors-seedN.safetensors``.

    *evaluate* are options of ``fairseq-adv evaluate``.
    """

    def __init__(
        self, path: Path, epochs: int, train_options: Sequence[str], output: Path, evaluate: Sequence[str] = ()
    ) -> None:
        for part in ("bin", "raw"):
            if not (path / part).is_dir():
                raise ValueError(f"{path} has no {part}/: prepare it with scripts/quickstart.sh --prepare-only")
        self.path, self.epochs, self.train_options = path, epochs, train_options
        self.output, self.evaluate = output, evaluate
        self.label = path.name

    def _neighbors(self, seed: int, proportion: str = DEFAULT_PROPORTION) -> Path:
        share = "" if proportion == DEFAULT_PROPORTION else f"proportion{proportion}-"
        return self.path / f"neighbors-{share}seed{seed}.safetensors"

    def prepare(self, variants: Sequence[Variant], seeds: Sequence[int]) -> Iterator[Command]:
        arch = [variant.name for variant in variants if variant.needs_neighbors]
        lacking = [str(seed) for seed in seeds if arch and not self._neighbors(seed).is_file()]
        if lacking:
            raise ValueError(
                f"{self.path} has no neighbor file for seed {', '.join(lacking)}, which {', '.join(arch)} needs: run "
                f"scripts/quickstart.sh --prepare-only --seed {lacking[0]} with the options that prepared the folder"
            )
        for proportion in dict.fromkeys(variant.proportion for variant in variants if variant.needs_neighbors):
            for seed in seeds:
                file = self._neighbors(seed, proportion)
                if not file.is_file():
                    yield self._build(file, seed, proportion)

    def _build(self, file: Path, seed: int, proportion: str) -> Command:
        """Neighbours among another share of cached pairs, by the embeddings of the file that there is; one each."""
        from fairseq_adv.neighbors import load_neighbors

        embeddings = next(iter(load_neighbors(self._neighbors(seed), num_neighbors=1).source.values()))
        command = [*FAIRSEQ_ADV, "neighbors", self.path / "bin", "--output", file]
        command += ["--embeddings", embeddings, "--proportion", proportion, "--num-neighbors", 1, "--seed", seed]
        return [*command, "--remove-bpe", "sentencepiece"]

    def folder(self, variant: Variant, seed: int) -> Path:
        return self.output / f"{variant.name}-seed{seed}"

    def commands(self, variant: Variant, seed: int) -> Iterator[Command]:
        run = self.folder(variant, seed)
        options = [*self.train_options, *variant.for_seed(seed)]
        if variant.needs_neighbors:
            options += ["--cache-neighbors", str(self._neighbors(seed, variant.proportion))]
        regime = ["--name", variant.name, "--epochs", self.epochs, "--seed", seed]
        yield train_small(self.path / "bin", run, variant.method, *regime, "--", *options)
        score = run / "score.json"
        if not (score.is_file() and score.stat().st_mtime >= (run / "done").stat().st_mtime):
            yield evaluate(self.path / "bin", run, self.path / "raw", *self.evaluate)

    def report_folder(self) -> Path:
        return self.output / "report"


def _share(proportion: str) -> List[str]:
    """A recipe's option for a share of cached pairs other than its own."""
    return [] if proportion == DEFAULT_PROPORTION else ["--proportion", proportion]


class Recipe:
    """A script of ``examples/`` with its options (such as ``--reverse``), which says where its runs are."""

    def __init__(self, words: Sequence[str], train_options: Sequence[str]) -> None:
        self.script, *self.options = words
        self.train_options = train_options
        self.label = " ".join([Path(self.script).stem, *self.options])

    def _step(self, *words: object) -> List[object]:
        return ["bash", self.script, *self.options, *words]

    def _where(self, *words: object) -> Path:
        command = [str(word) for word in self._step("folder", *words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ValueError(f"{' '.join(command)}: {done.stderr.strip()}")
        return Path(done.stdout.strip().splitlines()[-1])

    def prepare(self, variants: Sequence[Variant], seeds: Sequence[int]) -> Iterator[Command]:
        yield self._step("prepare")
        for proportion in dict.fromkeys(variant.proportion for variant in variants if variant.needs_neighbors):
            for seed in seeds:
                yield self._step(*_share(proportion), "neighbors", seed)

    def folder(self, variant: Variant, seed: int) -> Path:
        return self._where(variant.name, seed)

    def commands(self, variant: Variant, seed: int) -> Iterator[Command]:
        options = [*self.train_options, *variant.for_seed(seed)]
        share = _share(variant.proportion) if variant.needs_neighbors else []
        yield [*self._step(*share, "--name", variant.name, "train", variant.method, seed), "--", *options]
        yield self._step("evaluate", variant.name, seed)

    def runs_folder(self) -> Path:
        """Where all runs are: …/runs/DIRECTION of translations, …/runs of sentences."""
        return self._where()

    def report_folder(self) -> Path:
        runs = self.runs_folder()
        return runs.parent.parent / f"report-grid-{runs.name}"
