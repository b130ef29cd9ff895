"""``fairseq-adv study sentences``: methods on sets of sentences, each with a strength chosen on the validation set.

The first seed trains every strength of each method; the best on the validation set goes on to the other seeds. The
test set is only looked at for the table.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

from fairseq_adv.experiments.grid_corpora import Recipe, Variant
from fairseq_adv.experiments.jobs import Run, finish
from fairseq_adv.experiments.sentence_results import publish, read_run, to_choose_by

SCRIPT = "fairseq-adv study sentences"


class Strength(NamedTuple):
    """The option that says how strong a method is, the values tried, and what else the method is trained with."""

    option: str
    values: Sequence[str]
    others: Sequence[str] = ()


# Radii that change outputs (docs/sentences.md measures them); one ascent step, or two passes, cost about the same.
STRENGTHS: Dict[str, Strength] = {
    "r3f": Strength("--r3f-sigma", ("0.003", "0.01", "0.03")),
    "rdrop": Strength("--rdrop-alpha", ("0.5", "1", "5")),
    "freelb": Strength("--adv-eps", ("0.03", "0.1", "0.3"), ("--adv-steps", "2")),
    "smart": Strength("--adv-eps", ("0.03", "0.1", "0.3"), ("--adv-steps", "1")),
    "arch": Strength("--adv-eps", ("0.03", "0.1", "0.3"), ("--adv-steps", "1", "--cache-interval", "inf")),
}
SHARED = ("--adv-outer-masks", "shared")


def method_and_values(text: str) -> Tuple[str, Sequence[str]]:
    """``smart`` → its own values, ``smart:0.1,0.3`` → these."""
    method, _, values = text.partition(":")
    if method == "plain" and not values:
        return method, ()
    if method not in STRENGTHS:
        raise ValueError(f"--methods takes plain, {', '.join(STRENGTHS)}, or with values METHOD:V,V; got {text!r}")
    chosen = values.split(",") if values else STRENGTHS[method].values
    try:
        list(map(float, chosen))
    except ValueError:
        raise ValueError(f"--methods {text}: values of {STRENGTHS[method].option} must be numbers") from None
    return method, chosen


@dataclass(frozen=True)
class SentenceStudy:
    """The options of the study."""

    recipes: Sequence[str] = field(
        metadata={"help": "recipes with their options, each in quotes", "positional": True, "metavar": "RECIPE"}
    )
    methods: Sequence[str] = field(
        default=("plain", *STRENGTHS),
        metadata={"help": "what to train; perhaps with strengths of its own", "metavar": "METHOD[:V,V]"},
    )
    shared: Sequence[str] = field(
        default=("smart",),
        metadata={
            "help": "methods that are trained once more with --adv-outer-masks shared, at the strength chosen: what "
            "is left of the gain without a second dropout mask"
        },
    )
    seeds: Sequence[int] = field(default=(1, 2, 3, 4, 5), metadata={"help": "seeds; strengths are chosen on the first"})
    jobs: int = field(default=1, metadata={"help": "runs at a time"})
    devices: Sequence[int] = field(default=(), metadata={"help": "numbers of the GPUs that runs may use"})

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, got {self.jobs}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds has a seed twice: {' '.join(map(str, self.seeds))}")
        unknown = [method for method in self.shared if method not in self.grid or method == "plain"]
        if unknown:
            raise ValueError(f"--shared {unknown[0]} is none of the regularised --methods: {', '.join(self.grid)}")
        refuse_missing(self.recipes)

    @property
    def grid(self) -> Dict[str, Sequence[str]]:
        """Method → strengths to choose from."""
        return dict(map(method_and_values, self.methods))


def refuse_missing(recipes: Sequence[str]) -> None:
    """Raise ``ValueError`` for a recipe that is not there."""
    missing = next((text.split()[0] for text in recipes if not Path(text.split()[0]).is_file()), None)
    if missing is not None:
        raise ValueError(f"there is no recipe {missing}")


def variant(method: str, value: str = "", shared: bool = False) -> Variant:
    """*method* at the strength *value*, named after both."""
    if method == "plain":
        return Variant(method, method, ())
    strength = STRENGTHS[method]
    options = [*strength.others, strength.option, value, *(SHARED if shared else ())]
    return Variant(f"{method}-{value}" + ("-shared" if shared else ""), method, options)


def candidates(study: SentenceStudy) -> Dict[str, List[Variant]]:
    """Method → what its strength is chosen among; plain has nothing to choose."""
    return {method: [variant(method, value) for value in values or ("",)] for method, values in study.grid.items()}


def chosen(recipe: Recipe, study: SentenceStudy) -> List[Variant]:
    """The best of each method on the validation set with the first seed, then the --shared ones at that strength."""
    best: Dict[str, Variant] = {}
    for method, tried in candidates(study).items():
        scores = {
            v: to_choose_by(read_run(recipe.folder(v, study.seeds[0])).scores["valid"]) for v in map(_hashable, tried)
        }
        best[method] = max(scores, key=lambda each: scores[each])
    values = {method: best[method].name.partition("-")[2] for method in study.shared}
    return [*best.values(), *(variant(method, value, shared=True) for method, value in values.items())]


def _hashable(each: Variant) -> Variant:
    return each._replace(options=tuple(each.options))


def work(cells: Sequence[Tuple[Recipe, Variant, int]], study: SentenceStudy) -> int:
    """Train and score *cells*; the exit status of :func:`finish`."""
    runs = [Run(recipe.folder(v, seed), partial(recipe.commands, v, seed)) for recipe, v, seed in cells]
    return finish(runs, SCRIPT, study.jobs, None, study.devices)


def run_study(study: SentenceStudy, train_options: Sequence[str] = ()) -> int:
    """Prepare, choose, train the rest, and print a table for each recipe; 0, 1 (failures) or 130 (interrupted).

    *train_options* are options of ``fairseq-train`` for every run.
    """
    recipes = [Recipe(text.split(), train_options) for text in study.recipes]
    tried = [v for of_method in candidates(study).values() for v in of_method]
    for recipe in recipes:
        prepare(recipe, tried, study.seeds)
    first = [(recipe, v, study.seeds[0]) for recipe in recipes for v in tried]
    status = work(first, study)
    if status:
        return status
    best = [(recipe, chosen(recipe, study)) for recipe in recipes]
    status = work([(recipe, v, seed) for seed in study.seeds for recipe, found in best for v in found], study)
    if status:
        return status
    for recipe, found in best:
        folders = [recipe.folder(v, seed) for v in found for seed in study.seeds]
        data = recipe.runs_folder().parent
        print(f"\n{recipe.label}\n")
        print(publish([read_run(folder) for folder in folders], data / "study", data / "baselines.json"), end="")
    return 0


def prepare(recipe: Recipe, tried: Sequence[Variant], seeds: Sequence[int]) -> None:
    """Run the recipe's steps before any training; raises ``ValueError`` with what failed."""
    for command in [*recipe.prepare(tried, seeds), ["bash", recipe.script, *recipe.options, "baselines"]]:
        words = [str(word) for word in command]
        if subprocess.run(words, check=False).returncode != 0:
            raise ValueError(f"{' '.join(words)} failed: see above")
