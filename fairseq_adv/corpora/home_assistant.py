"""Real parallel text out of a package: the user-interface translations of Home Assistant.

The ``homeassistant`` wheel carries ``homeassistant/components/<component>/translations/<lang>.json``:
nested dictionaries of short human translations in some sixty languages. Strings of the same component
under the same key path are translations of each other.

What is written are ``{train,valid,test}.{en,de}`` and, last of all, ``corpus.json`` with the counts and the
settings. The same wheel, options and seed give the same bytes. Every sentence, on either side, occurs
once in the whole corpus when compared as in :func:`sentence_key`, so nothing of the valid or test set can
be in the training set.
"""

from __future__ import annotations

import html
import json
import random
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from fairseq_adv.whole_files import write_text

Pair = Tuple[str, str]

MEMBER = re.compile(r"(?:^|/)components/([^/]+)/translations/([A-Za-z-]+)\.json$")
PLACEHOLDER = re.compile(r"\{\s*([A-Za-z0-9_.]+)\s*\}")
PLACEHOLDER_NAMES = "XYZ"  # what stands in the text for the first, second and third distinct placeholder
MARKUP = [
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),  # [text](link)
    (re.compile(r"</?[A-Za-z][^>]*>"), " "),  # HTML tags
    (re.compile(r"^\s*(?:[-*#>]+|\d+[.)])\s+"), ""),  # bullets, headings, numbered lists
    (re.compile(r"\*\*|__|`"), ""),
]
UNWANTED = re.compile(r"https?:|www\.|%key|\[%|[{}<>|\\]")


def strings(tree: object, path: Tuple[str, ...] = ()) -> Iterator[Tuple[Tuple[str, ...], str]]:
    """(key path, text) of every string in a nested translation dictionary."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from strings(value, (*path, str(key)))
    elif isinstance(tree, str):
        yield path, tree


def read_translations(wheel: Path, languages: Sequence[str]) -> Dict[str, Dict[Tuple[str, ...], str]]:
    """For each language the strings by (component, *key path).

    Raises ``ValueError`` when the file is no zip archive or a language is not in it.
    """
    found: Dict[str, Dict[Tuple[str, ...], str]] = {language: {} for language in languages}
    available: Counter[str] = Counter()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                match = MEMBER.search(name)
                if not match:
                    continue
                component, language = match.groups()
                available[language] += 1
                if language in found:
                    tree = json.loads(archive.read(name).decode("utf-8"))
                    found[language].update(strings(tree, (component,)))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{wheel} is not a complete wheel ({error}): delete it and download it again") from error
    for language in languages:
        if not found[language]:
            known = ", ".join(name for name, _ in available.most_common(40)) or "none at all"
            raise ValueError(f"--pair: {wheel.name} has no translations for {language!r}; it has {known}")
    return found


def name_placeholders(source: str, target: str) -> Optional[Pair]:
    """Put X, Y, Z for ``{placeholders}``, the same letter on both sides; None if the sides disagree."""
    names = list(dict.fromkeys(PLACEHOLDER.findall(source)))
    if set(names) != set(PLACEHOLDER.findall(target)) or len(names) > len(PLACEHOLDER_NAMES):
        return None
    letters = dict(zip(names, PLACEHOLDER_NAMES))
    return (
        PLACEHOLDER.sub(lambda match: letters[match[1]], source),
        PLACEHOLDER.sub(lambda match: letters[match[1]], target),
    )


def strip_markup(text: str) -> str:
    """Plain text on one line: without Markdown, HTML tags and repeated blanks."""
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(html.unescape(text).split())


def clean_pairs(source: str, target: str, min_words: int = 3, max_words: int = 40) -> Iterator[Pair]:
    """The usable sentence pairs of one string: line by line when both sides have as many lines.

    Left out: untranslated text, fewer than *min_words* or more than *max_words* words on the source side,
    addresses and template syntax, sides of which one has more than 2.5 times the other's characters.
    """
    lines = [[line for line in text.splitlines() if line.strip()] for text in (source, target)]
    if len(lines[0]) != len(lines[1]):
        return
    for pair in zip(*lines):
        named = name_placeholders(*(strip_markup(text) for text in pair))
        if named is None:
            continue
        left, right = named
        if UNWANTED.search(left) or UNWANTED.search(right) or sentence_key(left) == sentence_key(right):
            continue
        if not sentence_key(right) or not min_words <= len(left.split()) <= max_words:
            continue
        if max(len(left), len(right)) <= 2.5 * min(len(left), len(right)):
            yield left, right


def sentence_key(text: str) -> str:
    """What two sentences must differ in to count as different: letters and digits, not case or punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def distinct_pairs(pairs: Iterable[Pair]) -> List[Pair]:
    """One pair for each source and for each target sentence, the most frequent first, ties in text order."""
    kept: List[Pair] = []
    seen_left, seen_right = set(), set()
    for (left, right), _ in sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0])):
        keys = sentence_key(left), sentence_key(right)
        if keys[0] in seen_left or keys[1] in seen_right:
            continue
        seen_left.add(keys[0])
        seen_right.add(keys[1])
        kept.append((left, right))
    return kept


def split(pairs: Sequence[Pair], train: int, held_out: int, seed: int, test: int = 0) -> Dict[str, List[Pair]]:
    """Shuffle distinct *pairs* and cut *held_out* for valid, *test* for test (0: as many) and *train* for training.

    The test and valid sets depend on the seed and not on *train*: a larger training set keeps them.
    """
    test = test or held_out
    aside = test + held_out
    if len(pairs) < train + aside:
        raise ValueError(
            f"--pairs {train}: {train} for training and {aside} held out were asked for, but only "
            f"{len(pairs)} distinct pairs are there; give at most --pairs {max(len(pairs) - aside, 0)}"
        )
    order = sorted(pairs)
    random.Random(seed).shuffle(order)
    return {
        "test": order[:test],
        "valid": order[test:aside],
        "train": order[aside : aside + train],
    }


def build_corpus(
    wheel: Path, languages: Pair, train: int, held_out: int, seed: int, test: int = 0
) -> Dict[str, List[Pair]]:
    """Read, clean, deduplicate and split."""
    tables = read_translations(wheel, languages)
    aligned = ((text, tables[languages[1]].get(path)) for path, text in tables[languages[0]].items())
    pairs = (pair for left, right in aligned if right is not None for pair in clean_pairs(left, right))
    return split(distinct_pairs(pairs), train, held_out, seed, test)


def write_corpus(corpus: Dict[str, List[Pair]], languages: Pair, output: Path, settings: Dict[str, object]) -> None:
    """``OUTPUT/<subset>.<language>``, then ``corpus.json``: what is named there is complete."""
    output.mkdir(parents=True, exist_ok=True)
    for subset, pairs in corpus.items():
        for side, language in enumerate(languages):
            write_text(output / f"{subset}.{language}", "".join(pair[side] + "\n" for pair in pairs))
    counts = {subset: len(pairs) for subset, pairs in corpus.items()}
    write_text(output / "corpus.json", json.dumps({**settings, "counts": counts}, indent=2) + "\n")
