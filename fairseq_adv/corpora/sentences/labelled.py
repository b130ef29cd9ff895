"""Labelled sentences as files: ``SUBSET.input0``, ``SUBSET.input1`` for pairs, ``SUBSET.label``, ``set.json``."""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Collection, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from fairseq_adv.whole_files import whole_folder

FACTS = "set.json"
SAMPLE_SEED = 1  # one sample for all trainings


@dataclass(frozen=True)
class Example:
    """``second`` is None for single sentences; ``label`` is the name of a class, or a number."""

    first: str
    second: Optional[str]
    label: str

    @property
    def sentences(self) -> Tuple[str, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)


@dataclass
class SentenceSet:
    """Subsets of examples; ``train`` and ``valid`` are among them.

    ``classes`` gives the names of the classes in the order of their numbers, so that class 1 is the positive one of F1;
    empty for numbers (regression). ``metrics``: the first decides which checkpoint is the best. ``scored``: the
    subsets that results are reported on. ``unit``: numbers are learned in it, so that the head starts near them.
    """

    name: str
    classes: Sequence[str]
    metrics: Sequence[str]
    scored: Sequence[str]
    subsets: Dict[str, List[Example]] = field(repr=False)
    source: str = ""
    notes: List[str] = field(default_factory=list)
    unit: float = 1.0

    def __post_init__(self) -> None:
        for subset, examples in self.subsets.items():
            if not examples:
                raise ValueError(f"{self.name}: the subset {subset} has no examples")
            unknown = next((e.label for e in examples if self.classes and e.label not in self.classes), None)
            if unknown is not None:
                raise ValueError(
                    f"{self.name}: {subset} has the label {unknown!r}, not one of {', '.join(self.classes)}"
                )
            if not self.classes:
                for example in examples:
                    float(example.label)

    @property
    def is_pair(self) -> bool:
        return next(iter(self.subsets["train"])).second is not None


def sentence_key(sentence: str) -> str:
    """What two sentences must differ in to count as different: letters and digits, not case or punctuation."""
    return " ".join(re.findall(r"\w+", sentence.casefold()))


def distinct(examples: Iterable[Example]) -> List[Example]:
    """The first example of each text."""
    seen: Set[Tuple[str, ...]] = set()
    kept = []
    for example in examples:
        key = tuple(map(sentence_key, example.sentences))
        if key not in seen:
            seen.add(key)
            kept.append(example)
    return kept


def without_sentences_of(examples: Sequence[Example], held_out: Sequence[Example]) -> List[Example]:
    """The *examples* of which no sentence occurs in *held_out*."""
    taken = {sentence_key(sentence) for example in held_out for sentence in example.sentences}
    return [e for e in examples if taken.isdisjoint(map(sentence_key, e.sentences))]


def some_rows(examples: Sequence[Example], count: int) -> List[Example]:
    """*count* of them in their order, always the same; published files are ordered by origin, so not the first."""
    drawn = sorted(random.Random(SAMPLE_SEED).sample(range(len(examples)), count))
    return [examples[row] for row in drawn]


def one_line(text: str) -> str:
    return " ".join(text.split())


def write_set(sentences: SentenceSet, output: Path, train_rows: Optional[int] = None) -> Dict[str, object]:
    """Write the folder *output* whole, with a sample of *train_rows* of ``train`` if given; what ``set.json`` says."""
    subsets = dict(sentences.subsets)
    if train_rows is not None:
        if not 1 <= train_rows <= len(subsets["train"]):
            raise ValueError(f"--train-rows must be in [1, {len(subsets['train'])}], got {train_rows}")
        subsets["train"] = some_rows(subsets["train"], train_rows)
    facts = {key: value for key, value in asdict(sentences).items() if key != "subsets"}
    facts.update(pair=sentences.is_pair, rows={name: len(examples) for name, examples in subsets.items()})
    with whole_folder(output) as folder:
        for name, examples in subsets.items():
            columns: Dict[str, Collection[str]] = {"input0": [one_line(e.first) for e in examples]}
            if sentences.is_pair:
                columns["input1"] = [one_line(e.second or "") for e in examples]
            columns["label"] = [e.label for e in examples]
            for ending, lines in columns.items():
                (folder / f"{name}.{ending}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def read_facts(folder: Path) -> Dict[str, object]:
    """``set.json`` of a folder of :func:`write_set`; ``FileNotFoundError`` says how to make one."""
    path = folder / FACTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no set of sentences: fairseq-adv sentences fetch NAME --output {folder}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def read_subset(folder: Path, name: str) -> List[Example]:
    """Examples of one subset, as :func:`write_set` wrote them."""
    pair = (folder / f"{name}.input1").is_file()
    firsts, labels = _lines(folder / f"{name}.input0"), _lines(folder / f"{name}.label")
    seconds: Sequence[Optional[str]] = _lines(folder / f"{name}.input1") if pair else [None] * len(firsts)
    if not len(firsts) == len(seconds) == len(labels):
        raise ValueError(f"{folder}: the files of {name} have {len(firsts)}, {len(seconds)} and {len(labels)} lines")
    return [Example(*row) for row in zip(firsts, seconds, labels)]


def _lines(path: Path) -> List[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]
