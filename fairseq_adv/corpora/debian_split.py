"""Training, validation and test sets of package descriptions without leakage between them.

Descriptions repeat each other: packages of one source share paragraphs, and "This package contains the documentation
of X" stands in thousands. Three rules keep a test set from measuring what was copied:

1. a sentence, on either side, occurs once in the whole corpus, whatever its case and punctuation;
2. all text of one *source* package is in one subset;
3. a held-out sentence has a template – names, versions and numbers masked – that no other source package has.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from typing import Dict, Iterable, List, Mapping, Sequence, Set, Tuple

from fairseq_adv.corpora.debian_text import DescribedPair, Pair, sentence_key

# A source package with more pairs than this many and than this share of a held-out set, stays in training.
LARGEST, LARGEST_SHARE = 20, 0.05
MASK = "#"

_WORD = re.compile(r"[^\s,;:()\[\]\"„“”«»]+")
_CAPITALISED_NOUNS = {"de"}  # languages in which a capital says nothing about names

Subsets = Dict[str, List[Pair]]


def template(text: str, language: str, names: Iterable[str] = ()) -> str:
    """*text* in lower case with names, versions and numbers as ``#``, neighbouring ones as one.

    A name is a word of *names*, one with a digit, a capital or a sign inside, and – in languages that write nouns
    small – one with a capital behind the first word.
    """
    known = {name.casefold() for name in names}
    masked: List[str] = []
    for number, word in enumerate(match[0].rstrip(".!?…") for match in _WORD.finditer(text)):
        if not word:
            continue
        is_name = word.casefold() in known or re.search(r"\d|.[A-Z]|\w[-_/.+]\w", word) is not None
        if number and word[0].isupper() and language not in _CAPITALISED_NOUNS:
            is_name = True
        if not (is_name and masked and masked[-1] == MASK):
            masked.append(MASK if is_name else sentence_key(word))
    return " ".join(word for word in masked if word)


def distinct(pairs: Iterable[DescribedPair], dropped: Counter[str]) -> List[DescribedPair]:
    """The first pair of each source and of each target sentence (rule 1)."""
    seen: Tuple[Set[str], Set[str]] = (set(), set())
    kept = []
    for pair in pairs:
        keys = sentence_key(pair.source), sentence_key(pair.target)
        if keys[0] in seen[0] or keys[1] in seen[1]:
            dropped["pairs: a sentence that was there before"] += 1
            continue
        seen[0].add(keys[0])
        seen[1].add(keys[1])
        kept.append(pair)
    return kept


def split(
    pairs: Sequence[DescribedPair],
    sources: Mapping[str, str],
    languages: Pair,
    sizes: Mapping[str, int],
    seed: int,
    dropped: Counter[str],
) -> Subsets:
    """Cut *pairs* into the held-out sets of *sizes* (``test`` and ``valid``) and ``train`` by rules 2 and 3.

    *sources* maps packages to source packages; a package that is not there is one by itself. The held-out sets depend
    on the seed and the text alone. Raises ``ValueError`` if the text is too small for them.
    """
    by_source: Dict[str, List[DescribedPair]] = defaultdict(list)
    for pair in pairs:
        by_source[sources.get(pair.package, pair.package)].append(pair)
    own = _with_templates_of_their_own(by_source, languages)
    order = sorted(by_source)
    random.Random(seed).shuffle(order)
    waiting, subsets = iter(order), {}
    held_out: Set[str] = set()
    for name, size in sizes.items():
        chosen: List[DescribedPair] = []
        for source in waiting:
            if len(by_source[source]) > max(LARGEST, LARGEST_SHARE * size):
                continue
            held_out.add(source)
            chosen += own[source]
            dropped["held-out pairs: a template that other packages have"] += len(by_source[source]) - len(own[source])
            if len(chosen) >= size:
                break
        if len(chosen) < size:
            raise ValueError(
                f"the text has {len(pairs)} distinct pairs, too few for {size} in {name} without leakage; ask for fewer"
            )
        dropped["held-out pairs: beyond the size that was asked for"] += len(chosen) - size
        subsets[name] = [(pair.source, pair.target) for pair in chosen[:size]]
    train = [(pair.source, pair.target) for name in order if name not in held_out for pair in by_source[name]]
    if not train:
        raise ValueError(f"all of the {len(pairs)} distinct pairs are held out: ask for fewer than {dict(sizes)}")
    return {"train": train, **subsets}


def _with_templates_of_their_own(
    by_source: Mapping[str, Sequence[DescribedPair]], languages: Pair
) -> Dict[str, List[DescribedPair]]:
    """Of each source package the pairs whose templates, on both sides, no other source package has."""
    where: Tuple[Dict[str, Set[str]], Dict[str, Set[str]]] = (defaultdict(set), defaultdict(set))
    templates: Dict[DescribedPair, Pair] = {}
    for source, pairs in by_source.items():
        for pair in pairs:
            names = {source, pair.package, *pair.package.split("-")}
            both = template(pair.source, languages[0], names), template(pair.target, languages[1], names)
            templates[pair] = both
            for side in (0, 1):
                where[side][both[side]].add(source)
    return {
        source: [pair for pair in pairs if all(len(where[side][templates[pair][side]]) == 1 for side in (0, 1))]
        for source, pairs in by_source.items()
    }
