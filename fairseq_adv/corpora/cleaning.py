"""Drop training pairs that are too short, too long or too unequal, and set a validation set aside.

Takes ``{train,valid,test}.LANG`` of tokenised text and the same lines before tokenisation. A pair stays in training if
each side has --min-length to --max-length tokens and neither has more than --ratio times the other's (the criteria of
Moses's corpus cleaning). With ``--valid-every N``, every N-th pair that stays goes to the validation set instead, as in
fairseq's IWSLT'14 set-up. Writes tokenised ``{train,valid,test}.LANG`` and the references ``raw/{valid,test}.LANG``;
validation and test sets are never cleaned.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Callable, Dict, Iterator, Sequence, Tuple

from fairseq_adv.corpora.lines import read_pairs
from fairseq_adv.whole_files import whole_folder

Pair = Tuple[str, str]


@dataclass(frozen=True)
class Cleaning:
    """What is cleaned, how, and where to."""

    folder: Path = field(metadata={"positional": True, "help": "folder of tokenised {train,valid,test}.LANG"})
    plain: Path = field(metadata={"help": "folder of the same lines before tokenisation"})
    languages: Sequence[str] = field(metadata={"nargs": 2, "metavar": "LANG", "help": "endings of the two sides"})
    output: Path = field(metadata={"help": "folder to make"})
    min_length: int = field(default=1, metadata={"help": "shortest side, in tokens"})
    max_length: int = field(default=175, metadata={"help": "longest side, in tokens"})
    ratio: float = field(default=9.0, metadata={"help": "longer side / shorter side, at most"})
    valid_every: int = field(default=0, metadata={"help": "every N-th pair is for validation; 0: take valid.*"})

    def __post_init__(self) -> None:
        for option in ("ratio", "min_length"):
            if getattr(self, option) < 1:
                raise ValueError(f"--{option.replace('_', '-')} must be at least 1, got {getattr(self, option)}")
        if self.valid_every < 0 or self.valid_every == 1:
            raise ValueError(f"--valid-every must be 0 (take valid.*) or at least 2, got {self.valid_every}")


def keeps(tokens: Pair, limits: Cleaning) -> bool:
    """Whether a tokenised pair may train."""
    one, other = (len(side.split()) for side in tokens)
    if not all(limits.min_length <= length <= limits.max_length for length in (one, other)):
        return False
    return max(one, other) <= limits.ratio * min(one, other)


def pair_writer(stem: Path, languages: Sequence[str], stack: ExitStack) -> Callable[[Pair], None]:
    """A function that adds a pair to ``STEM.LANG``, which *stack* closes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    one, other = (Path(f"{stem}.{lang}").open("w", encoding="utf-8") for lang in languages)  # noqa: SIM115
    stack.enter_context(one)
    stack.enter_context(other)

    def write(pair: Pair) -> None:
        one.write(pair[0] + "\n")
        other.write(pair[1] + "\n")

    return write


def both_forms(cleaning: Cleaning, name: str) -> Iterator[Tuple[Pair, Pair]]:
    """(tokenised pair, plain pair) of the set *name*, line by line; ``ValueError`` if the folders differ in length."""
    folders = cleaning.folder, cleaning.plain
    both = [[folder / f"{name}.{language}" for language in cleaning.languages] for folder in folders]
    for tokens, plain in zip_longest(*(read_pairs(*paths) for paths in both)):
        if tokens is None or plain is None:
            longer, shorter = folders[::-1] if tokens is None else folders
            raise ValueError(f"{longer / name} is longer than {shorter / name}: are they the same lines?")
        yield tokens, plain


def split_training(cleaning: Cleaning) -> Iterator[Tuple[str, Pair, Pair]]:
    """(set that it goes to, tokens, plain text) of each training pair; the set is ``dropped`` for some."""
    kept = 0
    for tokens, plain in both_forms(cleaning, "train"):
        if not keeps(tokens, cleaning):
            yield "dropped", tokens, plain
            continue
        kept += 1
        is_valid = cleaning.valid_every and kept % cleaning.valid_every == 0
        yield ("valid" if is_valid else "train"), tokens, plain


def clean(cleaning: Cleaning) -> Dict[str, int]:
    """Make the output folder and count the pairs of each set and those dropped; ``ValueError`` if a set is empty."""
    with whole_folder(cleaning.output) as partial:
        counts = _write_sets(cleaning, partial)
        empty = [name for name in ("train", "valid", "test") if not counts[name]]
        if empty:
            raise ValueError(
                f"no pair is left for {' and '.join(empty)}; {counts['dropped']} of training were dropped: see --ratio"
            )
    return counts


def _write_sets(cleaning: Cleaning, output: Path) -> Dict[str, int]:
    counts = dict.fromkeys(("train", "valid", "test", "dropped"), 0)
    with ExitStack() as stack:
        writers = {name: pair_writer(output / name, cleaning.languages, stack) for name in ("train", "valid", "test")}
        raw = {name: pair_writer(output / "raw" / name, cleaning.languages, stack) for name in ("valid", "test")}

        def write(name: str, tokens: Pair, plain: Pair) -> None:
            counts[name] += 1
            if name in writers:
                writers[name](tokens)
            if name in raw:
                raw[name](plain)

        for name, tokens, plain in split_training(cleaning):
            write(name, tokens, plain)
        for name in ("test",) if cleaning.valid_every else ("valid", "test"):
            for tokens, plain in both_forms(cleaning, name):
                write(name, tokens, plain)
    return counts
