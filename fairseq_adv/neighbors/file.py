"""The neighbour file: safetensors, written row by row in one pass, checked against the data set when it is read.

Tensors: ``cache_ids`` (int64, m) and for each side ``<side>.neighbor_ids`` (int32, n x K) and ``<side>.cosine``
(float32, n x K; NaN for random neighbours). Metadata: format, version, fingerprint, sources, num_samples,
num_neighbors, proportion and seed.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from fairseq_adv.neighbors.fingerprint import differing_fields
from fairseq_adv.neighbors.lists import SIDES, Neighbors, StoredNeighbors, check_num_neighbors

FORMAT = "fairseq_adv.neighbors"
VERSION = 1
_REBUILD = "build it again with `fairseq-adv neighbors`"
_DTYPES: Dict[str, np.dtype] = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "F32": np.dtype("<f4")}
_FACTS = {"fingerprint", "sources", "num_samples", "num_neighbors"}
_CHECKED_ROWS = 1 << 20
Shapes = Dict[str, Tuple[str, Tuple[int, ...]]]  # name -> dtype and shape


class NeighborFileWriter:
    """Writes a neighbour file in blocks of rows; nothing is held, and the file appears only when it is whole.

    Use as a context manager; leaving it on an exception removes what was written. *settings* (JSON values) are
    stored with the file: ``fingerprint``, ``sources``, ``proportion``, ``seed``.
    """

    def __init__(
        self,
        path: Union[str, Path],
        num_samples: int,
        cache_ids: np.ndarray,
        num_neighbors: int,
        sides: Sequence[str] = SIDES,
        **settings: Any,
    ) -> None:
        check_num_neighbors(num_neighbors, len(cache_ids))
        if num_samples > np.iinfo(np.int32).max:
            raise ValueError(f"a neighbor file holds at most 2^31 - 1 pairs, the data set has {num_samples}")
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._cache_ids, self._num_samples = cache_ids, num_samples
        facts = {**settings, "num_samples": num_samples, "num_neighbors": num_neighbors}
        shapes: Shapes = {"cache_ids": ("I64", (len(cache_ids),))}
        for side in sides:
            shapes[f"{side}.neighbor_ids"] = ("I32", (num_samples, num_neighbors))
            shapes[f"{side}.cosine"] = ("F32", (num_samples, num_neighbors))
        self._shapes = shapes
        self._head, self._offsets, self._size = _layout(shapes, facts)
        self._rows_written = dict.fromkeys(sides, 0)

    def __enter__(self) -> NeighborFileWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._temporary, "wb")
        try:
            self._file.write(self._head)
            self._file.truncate(self._size)
            self._put("cache_ids", 0, self._cache_ids)
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def write(self, side: str, neighbor_ids: np.ndarray, cosine: np.ndarray) -> None:
        """Append rows (``b x K`` each) for the next b sample ids of *side*."""
        first = self._rows_written[side]
        self._put(f"{side}.neighbor_ids", first, neighbor_ids)
        self._put(f"{side}.cosine", first, cosine)
        self._rows_written[side] = first + len(neighbor_ids)

    def _put(self, name: str, first_row: int, rows: np.ndarray) -> None:
        kind, shape = self._shapes[name]
        if rows.shape[1:] != shape[1:] or first_row + len(rows) > shape[0]:
            raise ValueError(f"rows {first_row} to {first_row + len(rows)} of {rows.shape} do not fit {name} {shape}")
        row_bytes = _DTYPES[kind].itemsize * int(np.prod(shape[1:], dtype=np.int64))
        self._file.seek(self._offsets[name] + first_row * row_bytes)
        self._file.write(np.ascontiguousarray(rows, dtype=_DTYPES[kind]).tobytes())

    def __exit__(self, error_type: Any, *_: Any) -> None:
        try:
            if error_type is None:
                self._commit()
        finally:
            self._file.close()
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()

    def _commit(self) -> None:
        for side, rows in self._rows_written.items():
            if rows != self._num_samples:
                raise ValueError(f"{rows} of {self._num_samples} rows of side {side} were written to {self.path}")
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._temporary, self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _layout(shapes: Shapes, facts: Mapping[str, Any]) -> Tuple[bytes, Dict[str, int], int]:
    """Head of a safetensors file, the offset of each tensor in the file, and the size of the file."""
    header: Dict[str, Any] = {"__metadata__": {"format": FORMAT, "version": str(VERSION), "facts": json.dumps(facts)}}
    starts, end = {}, 0
    for name, (kind, shape) in shapes.items():
        starts[name], size = end, _DTYPES[kind].itemsize * int(np.prod(shape, dtype=np.int64))
        end += size
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end - size, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format allows trailing blanks; data stay aligned
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + start for name, start in starts.items()}, len(head) + end


def load_neighbors(
    path: Union[str, Path], num_neighbors: Optional[int] = None, expected: Optional[Mapping[str, Any]] = None
) -> Neighbors:
    """Read a neighbour file; *num_neighbors* of each list are looked up, the others stand in where one is missing.

    *expected* is the :func:`dataset_fingerprint` of the training data. Raises ``FileNotFoundError`` without a file
    and ``ValueError`` for a damaged one, for one of other data (naming the fields that differ), for lists shorter
    than *num_neighbors* and for ids that are not in the data set or not in the cache set.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no neighbor file {path}: build one with `fairseq-adv neighbors`")
    try:
        with safe_open(str(path), framework="numpy") as file:
            facts = _facts(path, file.metadata())
            if expected is not None:
                _refuse_other_data(path, facts, expected)
            count = _columns(path, facts, num_neighbors)
            cache_ids = file.get_tensor("cache_ids")
            there = set(file.keys())
            sides = [side for side in SIDES if side == "src" or f"{side}.neighbor_ids" in there]
            lists = {side: file.get_tensor(f"{side}.neighbor_ids") for side in sides}
    except SafetensorError as error:
        raise ValueError(f"neighbor file {path} is damaged or no safetensors file ({error}): {_REBUILD}") from error
    _check_ids(path, facts["num_samples"], cache_ids, lists)
    chosen_by = facts.get("proportion"), facts.get("seed")
    return StoredNeighbors(facts["num_samples"], cache_ids, count, lists, facts["sources"], *chosen_by)


def _facts(path: Path, metadata: Optional[Mapping[str, str]]) -> Dict[str, Any]:
    if not metadata or metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not one of `fairseq-adv neighbors`")
    if metadata.get("version") != str(VERSION):
        raise ValueError(
            f"neighbor file {path} has format version {metadata.get('version')}, not {VERSION}: {_REBUILD}"
        )
    try:
        facts = json.loads(metadata["facts"])
        if facts.keys() >= _FACTS:
            return facts
    except (KeyError, ValueError):
        pass
    raise ValueError(f"neighbor file {path} is damaged: its metadata cannot be read: {_REBUILD}")


def _refuse_other_data(path: Path, facts: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    differing = differing_fields(facts["fingerprint"], expected)
    if differing:
        raise ValueError(
            f"neighbor file {path} belongs to another data set or dictionary; it differs from the training data in "
            f"{', '.join(differing)}: {_REBUILD} for this data, the options of fairseq-train behind -- (such as -- "
            "--upsample-primary 2 or -- --truncate-source), since they may change what it sees"
        )


def _columns(path: Path, facts: Mapping[str, Any], num_neighbors: Optional[int]) -> int:
    stored = int(facts["num_neighbors"])
    if num_neighbors is None:
        return stored
    if not 1 <= num_neighbors <= stored:
        raise ValueError(
            f"{num_neighbors} neighbors asked for, but neighbor file {path} holds {stored} for each sentence: "
            f"{_REBUILD} --num-neighbors {max(1, num_neighbors)}, or ask for 1 to {stored}"
        )
    return num_neighbors


def _check_ids(path: Path, num_samples: int, cache_ids: np.ndarray, lists: Mapping[str, np.ndarray]) -> None:
    """Every id must be of the data set, and every neighbour of the cache set."""
    if len(cache_ids) == 0 or cache_ids[0] < 0 or cache_ids[-1] >= num_samples or (np.diff(cache_ids) <= 0).any():
        raise ValueError(f"neighbor file {path} has cached ids that are not ascending ids below {num_samples}")
    is_cached = np.zeros(num_samples, dtype=bool)
    is_cached[cache_ids] = True
    for side, rows in lists.items():
        if len(rows) != num_samples:
            raise ValueError(f"neighbor file {path} has {len(rows)} lists for {num_samples} pairs, side {side}")
        for first in range(0, num_samples, _CHECKED_ROWS):
            block = rows[first : first + _CHECKED_ROWS]
            if block.min() < 0 or block.max() >= num_samples:
                raise ValueError(f"neighbor file {path} names {side} neighbors beyond its {num_samples} pairs")
            if not is_cached[block].all():
                raise ValueError(f"neighbor file {path} names {side} neighbors that are not in its cache set")
