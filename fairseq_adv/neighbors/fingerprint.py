"""A fingerprint of the training data, by which a neighbour file knows the data set that it belongs to."""

from __future__ import annotations

import hashlib
from typing import Dict, List, Mapping, Sequence, Union

import numpy as np

Fingerprint = Dict[str, Union[int, str]]


def dataset_fingerprint(
    src_sizes: np.ndarray, tgt_sizes: np.ndarray, src_symbols: Sequence[str], tgt_symbols: Sequence[str]
) -> Fingerprint:
    """Number of pairs, and a hash each of the sentence lengths and the dictionary of both sides.

    *src_sizes* and *tgt_sizes* are the lengths in tokens, in the order of the sample ids, of the whole training
    split: before any filter by length. The symbols are those of the dictionaries, special ones included.
    """
    if len(src_sizes) != len(tgt_sizes):
        raise ValueError(f"{len(src_sizes)} source sentences against {len(tgt_sizes)} target sentences")
    return {
        "num_samples": len(src_sizes),
        "src_sizes": _hash(np.ascontiguousarray(src_sizes, dtype="<i8").tobytes()),
        "tgt_sizes": _hash(np.ascontiguousarray(tgt_sizes, dtype="<i8").tobytes()),
        "src_dict": _hash("\n".join(src_symbols).encode()),
        "tgt_dict": _hash("\n".join(tgt_symbols).encode()),
    }


def sentence_fingerprint(sizes: np.ndarray, symbols: Sequence[str], labels: Sequence[Sequence[float]]) -> Fingerprint:
    """As :func:`dataset_fingerprint` for rows of one side (sentences, or pairs as one input) with their *labels*."""
    if len(sizes) != len(labels):
        raise ValueError(f"{len(sizes)} rows against {len(labels)} labels")
    return {
        "num_samples": len(sizes),
        "src_sizes": _hash(np.ascontiguousarray(sizes, dtype="<i8").tobytes()),
        "src_dict": _hash("\n".join(symbols).encode()),
        "labels": _hash("\n".join(" ".join(map(repr, row)) for row in labels).encode()),
    }


def differing_fields(found: Mapping[str, object], expected: Mapping[str, object]) -> List[str]:
    """``"field (found against expected)"`` for each field of *expected* that *found* lacks or has otherwise."""
    return [
        f"{name} ({found.get(name, 'absent')} against {value})"
        for name, value in expected.items()
        if found.get(name) != value
    ]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
