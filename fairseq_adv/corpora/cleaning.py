"""Drop training pairs that are too short, too long or too unequal, and set a validation set aside.

    python scripts/clean_pairs.py tokenized --plain plain --languages de en --output text --ratio 1.5 --valid-every 23

Takes ``{train,valid,test}.LANG`` of tokenised text and the same lines before tokenisation. A pair stays in training if
each side has --min-length to --max-length tokens and neither has more than --ratio times the other's (the criteria of
Moses's corpus cleaning). With ``--valid-every N``, every N-th pair that stays goes to the validation set instead, as in
fairseq's IWSLT'14 set-up. Writes tokenised ``{train,valid,test}.LANG`` and the references ``raw/{valid,test}.LANG``;
validation and test sets are never cleaned.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional, Sequence, Tuple

from fairseq_adv.corpora.lines import read_pairs
from fairseq_adv.corpora.whole_folder import whole_folder

Pair = Tuple[str, str]


class Limits(NamedTuple):
    min_length: int = 1  # tokens
    max_length: int = 175  # tokens
    ratio: float = 9.0  # longer side / shorter side


def keeps(tokens: Pair, limits: Limits) -> bool:
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


def both_forms(args: argparse.Namespace, name: str) -> Iterator[Tuple[Pair, Pair]]:
    """(tokenised pair, plain pair) of the set *name*, line by line; ``ValueError`` if the folders differ in length."""
    both = [[folder / f"{name}.{language}" for language in args.languages] for folder in (args.folder, args.plain)]
    for tokens, plain in zip_longest(*(read_pairs(*paths) for paths in both)):
        if tokens is None or plain is None:
            longer, shorter = (args.plain, args.folder) if tokens is None else (args.folder, args.plain)
            raise ValueError(f"{longer / name} is longer than {shorter / name}: are they the same lines?")
        yield tokens, plain


def split_training(args: argparse.Namespace) -> Iterator[Tuple[str, Pair, Pair]]:
    """(set that it goes to, tokens, plain text) of each training pair; the set is ``dropped`` for some."""
    limits, kept = Limits(args.min_length, args.max_length, args.ratio), 0
    for tokens, plain in both_forms(args, "train"):
        if not keeps(tokens, limits):
            yield "dropped", tokens, plain
            continue
        kept += 1
        is_valid = args.valid_every and kept % args.valid_every == 0
        yield ("valid" if is_valid else "train"), tokens, plain


def clean(args: argparse.Namespace, output: Path) -> str:
    """Write everything below *output* and tell what was done. Raises ``ValueError`` if a set comes out empty."""
    counts = dict.fromkeys(("train", "valid", "test", "dropped"), 0)
    with ExitStack() as stack:
        writers = {name: pair_writer(output / name, args.languages, stack) for name in ("train", "valid", "test")}
        raw = {name: pair_writer(output / "raw" / name, args.languages, stack) for name in ("valid", "test")}

        def write(name: str, tokens: Pair, plain: Pair) -> None:
            counts[name] += 1
            if name in writers:
                writers[name](tokens)
            if name in raw:
                raw[name](plain)

        for name, tokens, plain in split_training(args):
            write(name, tokens, plain)
        for name in ("test",) if args.valid_every else ("valid", "test"):
            for tokens, plain in both_forms(args, name):
                write(name, tokens, plain)
    dropped = counts.pop("dropped")
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise ValueError(f"no pair is left for {' and '.join(empty)}; {dropped} of training were dropped: see --ratio")
    return ", ".join(f"{name} {count}" for name, count in counts.items()) + f" pairs; {dropped} dropped"


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Clean training pairs by length, and split a validation set off.")
    parser.add_argument("folder", type=Path, help="folder of tokenised {train,valid,test}.LANG")
    parser.add_argument("--plain", type=Path, required=True, help="folder of the same lines before tokenisation")
    parser.add_argument("--languages", nargs=2, required=True, metavar="LANG")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--min-length", type=int, default=1, help="tokens (1)")
    parser.add_argument("--max-length", type=int, default=175, help="tokens (175)")
    parser.add_argument("--ratio", type=float, default=9.0, help="of the two lengths (9)")
    parser.add_argument("--valid-every", type=int, default=0, help="every N-th pair is for validation; 0: take valid.*")
    args = parser.parse_args(argv)
    if args.ratio < 1 or args.valid_every < 0 or args.valid_every == 1 or args.min_length < 1:
        parser.error("--ratio and --min-length must be >= 1, --valid-every 0 or > 1")
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse_args(argv)
    try:
        with whole_folder(args.output) as partial:
            print(clean(args, partial))
    except (ValueError, OSError) as error:
        print(f"clean_pairs.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
