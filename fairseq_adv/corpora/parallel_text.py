"""Parallel plain text, one sentence a line, out of the formats in which translation corpora are published.

Each ``--set NAME=PATH`` names one file a language; several of one NAME are put one after the other. PATH may hold * and
?, for which there must be one file. The name tells the format:

- ``train.tags.*`` (WIT3): the talks' lines; of the metadata, title and description are text too, as in fairseq's
  IWSLT'14 set-up, everything else (url, keywords, talkid, speaker, …) is left out;
- ``*.xml`` and ``*.sgm``: the text of ``<seg id=…>`` elements; ’ becomes ' with ``--plain-apostrophes``;
- anything else: lines of plain text.

XML entities become characters (``&apos;`` in tokenised text too: pairs of tokens stay pairs), white space of any kind
one blank. Both languages must have the same number of lines, file by file.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Sequence

from fairseq_adv.corpora.lines import read_lines, require_same_length
from fairseq_adv.whole_files import whole_folder

METADATA = re.compile(
    r"\s*</?(?:url|talkid|keywords|speaker|reviewer|translator|translators|reviewers|doc|date|dtime|videourl|videopath"
    r"|transcript|refset|srcset|mteval|head|content|control)\b"
)
TEXT_IN_TAGS = re.compile(r"\s*<(title|description)>(.*)</\1>\s*")
SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)


def one_line(text: str) -> str:
    """Entities as characters, and blanks for all white space, line separators of Unicode included."""
    return " ".join(html.unescape(text).split())


def tagged_sentences(lines: Iterable[str]) -> Iterator[str]:
    """The sentences of a ``train.tags`` file of WIT3."""
    for line in lines:
        if METADATA.match(line):
            continue
        inner = TEXT_IN_TAGS.fullmatch(line)
        yield one_line(inner[2] if inner else line)


def segments(text: str, plain_apostrophes: bool = False) -> Iterator[str]:
    """The segments of an XML or SGML set, in order."""
    for match in SEGMENT.finditer(text):
        sentence = one_line(match[1])
        yield sentence.replace("’", "'") if plain_apostrophes else sentence


def sentences(path: Path, plain_apostrophes: bool = False) -> Iterator[str]:
    """The sentences of *path*, whose name tells the format. Raises ``ValueError`` if it has none."""
    if path.name.startswith("train.tags."):
        found: Iterator[str] = tagged_sentences(read_lines(path))
    elif path.suffix in (".xml", ".sgm"):
        found = segments(path.read_text(encoding="utf-8"), plain_apostrophes)
    else:
        found = (one_line(line) for line in read_lines(path))
    number = 0
    for number, sentence in enumerate(found, 1):  # noqa: B007  (used after the loop)
        yield sentence
    if not number:
        raise ValueError(f"{path} holds no sentence: is it whole, and in the format that its name says?")


def find(folder: Path, pattern: str, language: str) -> Path:
    """The file of *language*; ``{lang}`` in *pattern* stands for it. Raises ``FileNotFoundError`` or ``ValueError``."""
    name = pattern.replace("{lang}", language)
    found = sorted(folder.glob(name))
    if not found:
        raise FileNotFoundError(f"the side {language} is missing: there is no {folder / name}")
    if len(found) > 1:
        raise ValueError(f"{folder / name} is not one file but {len(found)}: {', '.join(path.name for path in found)}")
    return found[0]


def write_set(folder: Path, patterns: Sequence[str], languages: Sequence[str], stem: Path, apostrophes: bool) -> int:
    """Write ``STEM.LANG`` for each language and return the number of sentences; ``ValueError`` if they differ."""
    total = 0
    for language in languages:
        Path(f"{stem}.{language}").unlink(missing_ok=True)
    for pattern in patterns:
        counts: Dict[str, int] = {}
        for language in languages:
            counts[language] = 0
            with Path(f"{stem}.{language}").open("a", encoding="utf-8", newline="\n") as output:
                for sentence in sentences(find(folder, pattern, language), apostrophes):
                    output.write(sentence + "\n")
                    counts[language] += 1
        require_same_length({str(folder / pattern.replace("{lang}", lang)): n for lang, n in counts.items()})
        total += counts[languages[0]]
    return total


def write_sets(
    folder: Path, sets: Dict[str, List[str]], languages: Sequence[str], output: Path, apostrophes: bool
) -> Dict[str, int]:
    """Make the folder *output* of all *sets* (name -> patterns) and return the number of sentences of each."""
    with whole_folder(output) as partial:
        return {
            name: write_set(folder, patterns, languages, partial / name, apostrophes) for name, patterns in sets.items()
        }
