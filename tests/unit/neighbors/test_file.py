"""The neighbour file: what is read back, and that every wrong or damaged file is refused with its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fairseq_adv.neighbors import NeighborFileWriter, dataset_fingerprint, load_neighbors

NUM_SAMPLES, K = 30, 3
CACHE_IDS = np.array([1, 4, 9, 16, 25])
SRC_SIZES, TGT_SIZES = np.arange(1, 31), np.arange(31, 1, -1)
SRC_SYMBOLS, TGT_SYMBOLS = ["<s>", "the", "dog"], ["<s>", "der", "Hund"]
FINGERPRINT = dataset_fingerprint(SRC_SIZES, TGT_SIZES, SRC_SYMBOLS, TGT_SYMBOLS)
SOURCES = {"src": "hf:model", "tgt": "fairseq:checkpoint.pt"}


def made_up_lists(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(CACHE_IDS)[:K] for _ in range(NUM_SAMPLES)])


LISTS = {"src": made_up_lists(1), "tgt": made_up_lists(2)}
COSINES = {side: np.random.default_rng(3).random((NUM_SAMPLES, K)).astype(np.float32) for side in LISTS}


def write(path: Path, lists=LISTS, cache_ids=CACHE_IDS) -> Path:
    facts: Dict[str, Any] = dict(fingerprint=FINGERPRINT, sources=SOURCES, proportion=1 / 6, seed=1)
    with NeighborFileWriter(path, NUM_SAMPLES, cache_ids, K, **facts) as writer:
        for first in range(0, NUM_SAMPLES, 7):  # sides take turns, in blocks
            for side, rows in lists.items():
                writer.write(side, rows[first : first + 7], COSINES[side][first : first + 7])
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "neighbors.safetensors")


def test_what_was_written_is_read_back(path):
    neighbors = load_neighbors(path, expected=FINGERPRINT)
    ids = np.array([29, 0, 4, 4])
    for side, rows in LISTS.items():
        found = neighbors.lookup(ids, side)
        assert found.dtype == np.int64
        assert np.array_equal(found, rows[ids])
    assert neighbors.is_cached(ids).tolist() == [False, False, True, True]
    assert (neighbors.num_samples, neighbors.num_neighbors, neighbors.source) == (NUM_SAMPLES, K, SOURCES)
    assert np.array_equal(neighbors.cache_ids, CACHE_IDS)


def test_the_file_is_plain_safetensors(path):
    tensors = load_file(path)
    assert np.array_equal(tensors["cache_ids"], CACHE_IDS)
    for side in LISTS:
        assert np.array_equal(tensors[f"{side}.neighbor_ids"], LISTS[side])
        assert np.array_equal(tensors[f"{side}.cosine"], COSINES[side])


def test_only_the_asked_columns_are_held(path):
    neighbors = load_neighbors(path, num_neighbors=2)
    assert neighbors.num_neighbors == 2
    assert np.array_equal(neighbors.lookup(np.arange(NUM_SAMPLES), "tgt"), LISTS["tgt"][:, :2])


@pytest.mark.parametrize("count", [K + 1, 0])
def test_lists_that_are_too_short_are_refused(path, count):
    with pytest.raises(ValueError, match=rf"{count} neighbors asked for, but .*neighbors.safetensors holds 3"):
        load_neighbors(path, num_neighbors=count)


@pytest.mark.parametrize("field", ["num_samples", "src_sizes", "tgt_sizes", "src_dict", "tgt_dict"])
def test_other_data_are_refused_by_the_field_that_differs(path, field):
    sizes = {"src_sizes": SRC_SIZES, "tgt_sizes": TGT_SIZES}
    symbols = {"src_dict": SRC_SYMBOLS, "tgt_dict": TGT_SYMBOLS}
    if field == "num_samples":
        sizes = {name: value[:-1] for name, value in sizes.items()}
    elif field in sizes:
        sizes[field] = sizes[field][::-1]
    else:
        symbols[field] = [*symbols[field], "cat"]
    changed: List[Any] = [*sizes.values(), *symbols.values()]
    other = dataset_fingerprint(*changed)
    differing = {name for name in FINGERPRINT if other[name] != FINGERPRINT[name]}
    assert differing == ({"num_samples", "src_sizes", "tgt_sizes"} if field == "num_samples" else {field})
    with pytest.raises(ValueError, match="belongs to another data set") as raised:
        load_neighbors(path, expected=other)
    assert str(path) in str(raised.value)
    assert {name for name in FINGERPRINT if f"{name} (" in str(raised.value)} == differing


def test_fingerprints_do_not_depend_on_the_integer_type_but_on_symbol_borders():
    narrow = dataset_fingerprint(SRC_SIZES.astype(np.int32), TGT_SIZES.astype(np.int16), SRC_SYMBOLS, TGT_SYMBOLS)
    assert narrow == FINGERPRINT
    joined = dataset_fingerprint(SRC_SIZES, TGT_SIZES, ["<s>", "thedog"], TGT_SYMBOLS)
    assert joined["src_dict"] != FINGERPRINT["src_dict"]
    with pytest.raises(ValueError, match="30 source sentences against 29"):
        dataset_fingerprint(SRC_SIZES, TGT_SIZES[1:], SRC_SYMBOLS, TGT_SYMBOLS)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"neighbors\.safetensors is damaged or no safetensors file"):
        load_neighbors(path)


def test_files_that_are_none_of_ours_are_refused(tmp_path):
    path = tmp_path / "other"
    with pytest.raises(FileNotFoundError, match="other: build one"):
        load_neighbors(path)
    path.write_text("0 1 2\n" * 100)
    with pytest.raises(ValueError, match="other is damaged or no safetensors"):
        load_neighbors(path)
    save_file({"cache_ids": CACHE_IDS}, path)
    with pytest.raises(ValueError, match="other is a safetensors file, but not one of"):
        load_neighbors(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"version": "7"}, "has format version 7"), ({"facts": "{"}, "damaged"), ({"facts": "{}"}, "damaged")],
)
def test_other_metadata_are_refused(path, changed, message):
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    save_file(load_file(path), path, {**header["__metadata__"], **changed})
    with pytest.raises(ValueError, match=rf"neighbors\.safetensors .*{message}"):
        load_neighbors(path)


@pytest.mark.parametrize(
    ("wrong_id", "message"),
    [
        (NUM_SAMPLES, "src neighbors beyond its 30 pairs"),
        (-2, "src neighbors beyond its 30 pairs"),
        (2, "src neighbors that are not in its cache set"),
    ],
)
def test_neighbors_that_cannot_be_are_refused(tmp_path, wrong_id, message):
    rows = LISTS["src"].copy()
    rows[17, 1] = wrong_id
    path = write(tmp_path / "wrong", {**LISTS, "src": rows})
    with pytest.raises(ValueError, match=f"wrong names {message}"):
        load_neighbors(path)


@pytest.mark.parametrize("cache_ids", [[1, 4, 9, 16, 30], [-1, 4, 9, 16, 25], [1, 4, 4, 16, 25], [4, 1, 9, 16, 25]])
def test_a_cache_set_that_cannot_be_is_refused(tmp_path, cache_ids):
    path = write(tmp_path / "wrong", cache_ids=np.array(cache_ids))
    with pytest.raises(ValueError, match="wrong has cached ids that are not ascending ids below 30"):
        load_neighbors(path)


def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(path):
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), NeighborFileWriter(path, NUM_SAMPLES, CACHE_IDS, K) as writer:
        writer.write("src", LISTS["src"][:5], COSINES["src"][:5])
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_with_missing_or_surplus_rows_does_not_appear(tmp_path):
    path = tmp_path / "part"
    with (
        pytest.raises(ValueError, match="29 of 30 rows of side tgt"),
        NeighborFileWriter(path, 30, CACHE_IDS, K) as writer,
    ):
        writer.write("src", LISTS["src"], COSINES["src"])
        writer.write("tgt", LISTS["tgt"][1:], COSINES["tgt"][1:])
    with pytest.raises(ValueError, match="do not fit"), NeighborFileWriter(path, 30, CACHE_IDS, K) as writer:
        writer.write("src", LISTS["src"], COSINES["src"])
        writer.write("src", LISTS["src"][:1], COSINES["src"][:1])
    assert list(tmp_path.iterdir()) == []
