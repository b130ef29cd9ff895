"""A parallel corpus out of the package descriptions of a Debian or Ubuntu archive.

People have translated the descriptions of tens of thousands of packages: 146 thousand distinct sentence pairs
English-Italian, 58 thousand English-French and 43 thousand English-German in Debian 12. The indexes come with apt's own
client, or lie in a folder.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

from fairseq_adv.corpora.debian_archive import fetch_indexes, read_index
from fairseq_adv.corpora.debian_split import Subsets, distinct, split
from fairseq_adv.corpora.debian_text import described_pairs, source_packages
from fairseq_adv.whole_files import whole_folder

ORIGINAL = "en"  # descriptions are written in English and translated into all other languages


class Request(NamedTuple):
    """What is asked for: a translation's language, the sizes of the held-out sets, and the seed of the split."""

    language: str
    valid: int = 2000
    test: int = 2000
    seed: int = 1
    train: int = 0  # at most so many pairs; 0 means all


def indexes(language: str, download: Path) -> Path:
    """The folder of the indexes for *language* below *download*, fetched if it is not there yet."""
    folder = download / f"{ORIGINAL}-{language}"
    if not folder.is_dir():
        fetch_indexes((ORIGINAL, language), folder)
    return folder


def build(folder: Path, request: Request) -> Tuple[Subsets, Dict[str, int]]:
    """The subsets, as (English, translation) pairs, and how many pairs and descriptions each rule took."""
    dropped: Counter[str] = Counter()
    originals, translations = (read_index(folder, f"Translation-{name}") for name in (ORIGINAL, request.language))
    pairs = list(described_pairs(originals, translations, request.language, dropped))
    kept = distinct(pairs, dropped)
    sizes = {"test": request.test, "valid": request.valid}
    sources = source_packages(read_index(folder, "Packages"))
    subsets = split(kept, sources, (ORIGINAL, request.language), sizes, request.seed, dropped)
    if request.train:
        subsets["train"] = subsets["train"][: request.train]
    return subsets, {"pairs": len(pairs), "distinct pairs": len(kept), **dropped}


def write(subsets: Subsets, languages: Sequence[str], output: Path, record: Dict[str, object]) -> None:
    """Make the folder *output* with ``SUBSET.LANG``, one sentence a line, and ``corpus.json``; *languages* en first."""
    with whole_folder(output) as partial:
        for subset, pairs in subsets.items():
            for side, language in enumerate(languages):
                lines = "".join(f"{pair[side]}\n" for pair in pairs)
                (partial / f"{subset}.{language}").write_text(lines, encoding="utf-8")
        (partial / "corpus.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def account(subsets: Subsets, counts: Dict[str, int]) -> List[str]:
    """What there is in each subset and what each rule took, a line each."""
    sizes = ", ".join(f"{subset} {len(pairs)}" for subset, pairs in subsets.items())
    words = sum(len(pair[0].split()) for pair in subsets["train"])
    took = [f"  {count:7d} {name}" for name, count in counts.items()]
    return [f"{sizes} pairs; {words} English words to train on", *took]


def corpus(folder: Path, request: Request, output: Path) -> List[str]:
    """Build the corpus of *request* from the indexes in *folder* as the folder *output*; returns :func:`account`."""
    subsets, counts = build(folder, request)
    sizes = {subset: len(pairs) for subset, pairs in subsets.items()}
    write(subsets, (ORIGINAL, request.language), output, {**request._asdict(), "subsets": sizes, "counts": counts})
    return account(subsets, counts)
