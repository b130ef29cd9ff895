"""Moses tokenisation of parallel text by sacremoses, or its reverse.

    python scripts/tokenize_text.py plain --languages de en --output tokenized --lowercase
    python scripts/tokenize_text.py tokenized --languages en vi --output plain --detokenize

Every file NAME.LANG of the folder becomes one of the same name. Special characters are not escaped (``&apos;`` in
Moses's own output): the tokens are the same, one for one, so BLEU on tokens is too, and subwords and BERT see the
characters that they know.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from functools import partial as bind
from itertools import islice
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from tqdm import tqdm

from fairseq_adv.corpora.lines import read_lines
from fairseq_adv.corpora.whole_folder import whole_folder

CHUNK = 4000  # lines that a process takes at a time


class Treatment(NamedTuple):
    language: str
    lowercase: bool = False
    normalize: bool = False  # Moses's normalisation of punctuation first
    detokenize: bool = False


@cache
def line_function(treatment: Treatment) -> Callable[[str], str]:
    """What is done to one line. Raises ``ValueError`` if sacremoses is not installed."""
    try:
        from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer
    except ImportError as error:
        raise ValueError("tokenisation needs sacremoses: pip install sacremoses") from error
    if treatment.detokenize:
        detokenizer = MosesDetokenizer(lang=treatment.language)
        return lambda line: detokenizer.detokenize(line.split())
    tokenizer = MosesTokenizer(lang=treatment.language)
    normalizer = MosesPunctNormalizer(lang=treatment.language) if treatment.normalize else None

    def tokens(line: str) -> str:
        text = normalizer.normalize(line) if normalizer is not None else line
        text = tokenizer.tokenize(text, return_str=True, escape=False)
        # a token may hold white space of Unicode, which other programs would split at
        return " ".join((text.lower() if treatment.lowercase else text).split())

    return tokens


def treat_lines(lines: List[str], treatment: Treatment) -> List[str]:
    return list(map(line_function(treatment), lines))


def chunks(lines: Iterable[str]) -> Iterator[List[str]]:
    lines = iter(lines)
    while chunk := list(islice(lines, CHUNK)):
        yield chunk


def treat_file(source: Path, target: Path, treatment: Treatment, workers: int) -> None:
    """Write *target*, line by line what became of *source*."""
    treat = bind(treat_lines, treatment=treatment)
    bar = tqdm(unit=" lines", desc=source.name, disable=None)
    with bar, target.open("w", encoding="utf-8", newline="\n") as out:
        for treated in in_processes(treat, chunks(read_lines(source)), workers):
            out.writelines(line + "\n" for line in treated)
            bar.update(len(treated))


def in_processes(
    treat: Callable[[List[str]], List[str]], work: Iterator[List[str]], workers: int
) -> Iterator[List[str]]:
    """``map(treat, work)`` in order, by *workers* processes that are never more than a few chunks ahead."""
    if workers == 1:
        yield from map(treat, work)
        return
    with ProcessPoolExecutor(workers) as pool:
        while some := list(islice(work, 4 * workers)):
            yield from pool.map(treat, some)


def files(folder: Path, languages: Sequence[str]) -> List[Path]:
    """The files NAME.LANG of *folder*; ``FileNotFoundError`` if a side has none."""
    found = []
    for language in languages:
        side = sorted(folder.glob(f"*.{language}"))
        if not side:
            raise FileNotFoundError(f"{folder} holds no file NAME.{language}")
        found += side
    return found


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Moses tokenisation by sacremoses, or its reverse.")
    parser.add_argument("folder", type=Path, help="folder with NAME.LANG")
    parser.add_argument("--languages", nargs=2, required=True, metavar="LANG")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument("--normalize", action="store_true", help="Moses's normalisation of punctuation first")
    parser.add_argument("--detokenize", action="store_true", help="from tokens to text")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f"--workers must be >= 1, got {args.workers}")
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse_args(argv)
    try:
        with whole_folder(args.output) as partial:
            for path in files(args.folder, args.languages):
                treatment = Treatment(path.suffix[1:], args.lowercase, args.normalize, args.detokenize)
                treat_file(path, partial / path.name, treatment, args.workers)
    except (ValueError, OSError) as error:
        print(f"tokenize_text.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
