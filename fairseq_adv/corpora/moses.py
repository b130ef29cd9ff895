"""Moses tokenisation of parallel text by sacremoses, or its reverse.

Every file NAME.LANG of the folder becomes one of the same name. Special characters are not escaped (``&apos;`` in
Moses's own output): the tokens are the same, one for one, so BLEU on tokens is too, and subwords and BERT see the
characters that they know.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from functools import partial as bind
from itertools import islice
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple, Sequence

from tqdm import tqdm

from fairseq_adv.corpora.lines import read_lines
from fairseq_adv.whole_files import whole_folder

CHUNK = 4000  # lines that a process takes at a time


class Treatment(NamedTuple):
    """What is done to the lines of one language."""

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


def treat_folder(folder: Path, output: Path, treatments: Sequence[Treatment], workers: int) -> None:
    """Make the folder *output* of all files NAME.LANG in *folder*; *workers* processes. ``ValueError`` if none."""
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    of = {treatment.language: treatment for treatment in treatments}
    with whole_folder(output) as partial:
        for path in files(folder, list(of)):
            treat_file(path, partial / path.name, of[path.suffix[1:]], workers)


def files(folder: Path, languages: Sequence[str]) -> List[Path]:
    """The files NAME.LANG of *folder*; ``FileNotFoundError`` if a side has none."""
    found = []
    for language in languages:
        side = sorted(folder.glob(f"*.{language}"))
        if not side:
            raise FileNotFoundError(f"{folder} holds no file NAME.{language}")
        found += side
    return found
