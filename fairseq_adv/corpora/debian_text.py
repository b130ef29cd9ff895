"""Sentence pairs out of package descriptions and their translations.

A description is a synopsis, then paragraphs whose lines begin with a blank: a line with a dot alone parts them, a
bullet begins one, and further indented lines belong to what is above (Debian Policy, 5.6.13). Original and translation
are joined by the checksum of the original, ``Description-md5``: a translation of an older text finds no original.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Dict, Iterator, List, NamedTuple, Tuple

from fairseq_adv.corpora.debian_archive import stanzas

Pair = Tuple[str, str]

UNTRANSLATED = "<trans>"  # what the translation project writes where a paragraph has not been translated
MIN_WORDS, MAX_WORDS, MAX_RATIO = 3, 80, 2.5  # words of either side; the ratio is of characters

_BULLET = re.compile(r"\s*(?:[-*+•·o]|\d{1,2}[.)])\s+(?=\S)")
_SENTENCE_END = re.compile(r"[.!?][\"')\]»”]*\s+(?=[\"'(\[«„“]?[A-ZÀ-ÖØ-Þ0-9])")
# What ends in a full stop and no sentence, in the languages that the recipes are for; and initials, such as "J."
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.?g|i\.?e|cf|vs|etc|resp|approx|incl|no|vol|dr|mr|mrs|st|z\.\s?b|d\.\s?h|bzw|usw|ggf|evtl|u\.\s?a|vgl|ca|nr"
    r"|p\.\s?ex|c\.-à-d|env|es|ecc|pag|sig|dott|v)|\b\w)\.[\"')\]»”]*$",
    re.IGNORECASE,
)
_UNWANTED = re.compile(r"https?:|www\.|ftp:|\S@\S|[{}|\\~]|={2}|-{3}|<\w")


class DescribedPair(NamedTuple):
    """A sentence pair and the package whose description it comes from."""

    package: str
    source: str
    target: str


def paragraphs(description: str) -> List[str]:
    """The synopsis and the paragraphs of a description, each on one line and without its bullet."""
    first, *rest = description.split("\n")
    found, current = [_one_line(first)], ""
    for line in rest:
        is_bullet = _BULLET.match(line) is not None
        if line.strip() == "." or is_bullet:
            found.append(current)
            current = ""
        if line.strip() != ".":
            current += " " + (_BULLET.sub("", line, count=1) if is_bullet else line)
    return [text for text in map(_one_line, (*found, current)) if text]


def sentences(paragraph: str) -> List[str]:
    """*paragraph* cut behind full stops, question and exclamation marks that a capital or a digit follows."""
    found, start = [], 0
    for match in _SENTENCE_END.finditer(paragraph):
        if _ABBREVIATION.search(paragraph[start : match.end()].rstrip()):
            continue
        found.append(paragraph[start : match.end()].strip())
        start = match.end()
    return [*found, paragraph[start:]]


def aligned(source: str, target: str) -> Iterator[Pair]:
    """The sentence pairs of a description and its translation; none if they differ in paragraphs.

    A paragraph with another number of sentences on the other side stays whole.
    """
    left, right = paragraphs(source), paragraphs(target)
    if len(left) != len(right):
        return
    for pair in zip(left, right):
        cut = [sentences(text) for text in pair]
        yield from zip(*cut) if len(cut[0]) == len(cut[1]) else [pair]


def sentence_key(text: str) -> str:
    """What two sentences must differ in to count as different: letters and digits, not case or punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def fault(source: str, target: str) -> str:
    """Why a pair is of no use for training, in a word or two; empty if it is."""
    if UNTRANSLATED in source or UNTRANSLATED in target or sentence_key(source) == sentence_key(target):
        return "not translated"
    if _UNWANTED.search(source) or _UNWANTED.search(target):
        return "addresses and markup"
    words = [len(re.findall(r"[^\W\d_]+", text)) for text in (source, target)]
    if min(words) < MIN_WORDS or max(words) > MAX_WORDS:
        return "too short or too long"
    if max(len(source), len(target)) > MAX_RATIO * min(len(source), len(target)):
        return "lengths too unequal"
    return ""


def described_pairs(originals: str, translations: str, language: str, dropped: Counter[str]) -> Iterator[DescribedPair]:
    """The useful sentence pairs of a ``Translation-en`` and a ``Translation-LANG`` index, in the order of packages.

    *dropped* counts what is left out, and why.
    """
    english = _by_checksum(originals, "Description-en")
    translated = _by_checksum(translations, f"Description-{language}")
    for key, (package, translation) in sorted(translated.items(), key=lambda item: (item[1][0], item[0])):
        if key not in english:
            dropped["descriptions without their original"] += 1
            continue
        pairs = list(aligned(english[key][1], translation))
        dropped["descriptions with other paragraphs than their original"] += not pairs
        for pair in pairs:
            reason = fault(*pair)
            if reason:
                dropped[f"pairs: {reason}"] += 1
            else:
                yield DescribedPair(package, *pair)


def source_packages(packages: str) -> Dict[str, str]:
    """Binary package -> the source package that it is built from, by the index ``Packages``."""
    found = {}
    for stanza in stanzas(packages, ("Package", "Source")):
        name = stanza.get("Package", "")
        found[name] = stanza.get("Source", name).split(" ")[0]  # "Source: name (version)"
    return found


def _by_checksum(index: str, field: str) -> Dict[str, Tuple[str, str]]:
    """Checksum of the original -> (package, description)."""
    found: Dict[str, Tuple[str, str]] = {}
    for stanza in stanzas(index, ("Package", "Description-md5", field)):
        if field in stanza and "Description-md5" in stanza:
            found.setdefault(stanza["Description-md5"], (stanza.get("Package", ""), stanza[field]))
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())
