"""One shard: a write-once safetensors file of records, and reading single records out of it.

Tensors: ``ids`` and ``update`` i64[n]; for each side ``<side>`` [T, D] (the records' rows one after the other, δ/ε in
fp16, fp32 or int8 with ``<side>_scale`` f32[T]), ``<side>_off`` i64[n+1], ``<side>_mean`` f32[n, D] (mean over
tokens of δ), ``<side>_norm`` f32[n] (ℓ2 norm of δ), ``<side>_crc`` and ``<side>_mean_crc`` i64[n].
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from fairseq_adv.cache.files import RETRY_ERRORS, crc32, files

_NUMPY = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "I64": np.int64}


@dataclass
class Record:
    """δ of one sample: ``len x D`` fp32 for each side, and the update that made it."""

    sample_id: int
    update: int
    sides: Dict[str, Tensor]


def encode_rows(rows: Tensor, epsilon: float, dtype: str) -> Tuple[Tensor, Tensor]:
    """δ/ε in the number format *dtype*, and the scale of each row (empty unless int8)."""
    scaled = rows / epsilon if epsilon > 0 else rows
    if dtype == "int8":
        scale = scaled.abs().amax(dim=1).clamp(min=1e-30) / 127.0
        return (scaled / scale.unsqueeze(1)).round().to(torch.int8), scale
    return scaled.to(torch.float16 if dtype == "fp16" else torch.float32), torch.zeros(0)


def decode_rows(stored: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """The δ (fp32) that :func:`encode_rows` stored."""
    rows = stored.float()
    if stored.dtype == torch.int8:
        rows *= scale.unsqueeze(1)
    return rows.mul_(epsilon) if epsilon > 0 else rows


def build_shard(
    records: Sequence[Record], sides: Sequence[str], epsilon: float, dtype: str, meta: Mapping[str, str]
) -> bytes:
    """The bytes of a shard that holds *records*."""
    tensors: Dict[str, Tensor] = {
        "ids": torch.tensor([r.sample_id for r in records], dtype=torch.int64),
        "update": torch.tensor([r.update for r in records], dtype=torch.int64),
    }
    for side in sides:
        tensors.update(_side_tensors([r.sides[side].float() for r in records], side, epsilon, dtype))
    return save(tensors, metadata=dict(meta))


def _side_tensors(rows: List[Tensor], side: str, epsilon: float, dtype: str) -> Dict[str, Tensor]:
    offsets = torch.tensor([0] + [len(x) for x in rows], dtype=torch.int64).cumsum(0)
    stored, scale = encode_rows(torch.cat(rows), epsilon, dtype)
    means = torch.stack([x.mean(dim=0) if len(x) else x.new_zeros(x.size(1)) for x in rows])
    crcs = []
    for start, end in zip(offsets.tolist(), offsets.tolist()[1:]):
        crc = crc32(stored[start:end].numpy().tobytes())
        crcs.append(crc32(scale[start:end].numpy().tobytes(), crc) if dtype == "int8" else crc)
    tensors = {
        side: stored.contiguous(),
        f"{side}_off": offsets,
        f"{side}_mean": means,
        f"{side}_norm": torch.stack([x.norm() for x in rows]),
        f"{side}_crc": torch.tensor(crcs, dtype=torch.int64),
        f"{side}_mean_crc": torch.tensor([crc32(mean.numpy().tobytes()) for mean in means], dtype=torch.int64),
    }
    return {**tensors, f"{side}_scale": scale.contiguous()} if dtype == "int8" else tensors


def index_crc(data: bytes) -> int:
    """CRC of a shard's header and index, the part that a reader holds in memory."""
    header_end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:header_end])
    crc = crc32(data[:header_end])
    for name in sorted(_index_names(header)):
        start, end = header[name]["data_offsets"]
        crc = crc32(crc.to_bytes(4, "little") + data[header_end + start : header_end + end])
    return crc


def _index_names(header: Mapping[str, Any]) -> List[str]:
    bulky = {name for name in header if name.endswith(("_mean", "_scale"))} | {"src", "tgt", "__metadata__"}
    return [name for name in header if name not in bulky]


@dataclass
class ShardReader:
    """Header and index of one shard; reads records with a descriptor that its caller owns."""

    path: str
    entry: Mapping[str, Any]  # name, size, crc32, index_crc32, n: as in the manifest
    epsilon: float
    _index: Dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _places: Dict[str, Tuple[int, np.dtype, int]] = field(default_factory=dict, repr=False)  # offset, dtype, columns

    def load_index(self, fd: int) -> None:
        """Read and check header and index; raises ``ValueError`` naming the shard if they are damaged."""
        size = os.fstat(fd).st_size
        if size != self.entry["size"]:
            raise ValueError(
                f"shard {self.path} has {size} bytes, its manifest says {self.entry['size']}: it is damaged"
            )
        try:
            header, header_end, crc = self._read_header(fd, size)
            for name in sorted(_index_names(header)):
                start, end = header[name]["data_offsets"]
                data = files.read_exactly(fd, end - start, header_end + start, self.path)
                crc = crc32(crc.to_bytes(4, "little") + data)
                values = np.frombuffer(data, dtype=_NUMPY[header[name]["dtype"]])
                self._index[name] = values.astype(np.uint32) if name.endswith("_crc") else values
        except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise ValueError(f"shard {self.path} has a damaged header or index: {error}") from error
        if crc != self.entry["index_crc32"]:
            raise ValueError(f"shard {self.path} has a damaged header or index: checksum differs")
        for name, info in header.items():
            if name not in self._index and name != "__metadata__":
                columns = int(np.prod(info["shape"][1:], dtype=np.int64))
                self._places[name] = header_end + info["data_offsets"][0], np.dtype(_NUMPY[info["dtype"]]), columns

    def _read_header(self, fd: int, size: int) -> Tuple[Dict[str, Any], int, int]:
        """The parsed header, the offset behind it and its CRC."""
        length = files.read_exactly(fd, 8, 0, self.path)
        header_end = 8 + int.from_bytes(length, "little")
        if header_end > size:
            raise ValueError(f"a header of {header_end} bytes")
        raw = files.read_exactly(fd, header_end - 8, 8, self.path)
        return json.loads(raw), header_end, crc32(length + raw)

    @property
    def ids(self) -> np.ndarray:
        return self._index["ids"]

    def updates(self) -> np.ndarray:
        return self._index["update"]

    def norms(self, side: str) -> np.ndarray:
        """ℓ2 norm of each record's δ."""
        return self._index[f"{side}_norm"]

    def lengths_at(self, positions: np.ndarray, side: str) -> np.ndarray:
        """Number of rows of the records at *positions*."""
        offsets = self._index[f"{side}_off"]
        return offsets[positions + 1] - offsets[positions]

    def layout(self, side: str) -> Tuple[np.dtype, int]:
        """Number format and width of the stored rows."""
        return self._places[side][1:]

    def read_rows(
        self, fd: int, positions: np.ndarray, side: str, rows: Sequence[memoryview], scales: Sequence[memoryview]
    ) -> None:
        """Fill *rows* (and *scales*, if int8) with what is stored of the records at *positions*; checks their CRCs."""
        start = self._index[f"{side}_off"][positions]
        crcs = self._fill(fd, positions, side, side, start, rows)
        if scales:
            crcs = self._fill(fd, positions, side, f"{side}_scale", start, scales, crcs)
        self._compare(crcs, positions, side, f"{side}_crc", "checksum differs")

    def read_means(self, fd: int, positions: np.ndarray, side: str, out: Sequence[memoryview]) -> None:
        """Fill *out* with the means over tokens of the records' δ, ``D`` fp32 each; checks their CRCs."""
        crcs = self._fill(fd, positions, side, f"{side}_mean", positions.astype(np.int64), out)
        self._compare(crcs, positions, side, f"{side}_mean_crc", "checksum of its mean differs")

    def _fill(
        self,
        fd: int,
        positions: np.ndarray,
        side: str,
        name: str,
        first: np.ndarray,
        out: Sequence[memoryview],
        crcs: Sequence[int] = (),
    ) -> List[int]:
        """Read tensor *name* from the rows *first* on until each of *out* is full; the CRCs (gone on with) of that."""
        base, dtype, columns = self._places[name]
        offsets = (base + first * (columns * dtype.itemsize)).tolist()
        found = []
        for number, (offset, view, crc) in enumerate(zip(offsets, out, crcs or [0] * len(out))):
            try:
                files.read_into(fd, view, offset, self.path)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in RETRY_ERRORS:
                    raise
                self._damaged(positions[number], side, str(error), error)
            found.append(crc32(view, crc))
        return found

    def _compare(self, crcs: List[int], positions: np.ndarray, side: str, name: str, what: str) -> None:
        wrong = np.flatnonzero(np.asarray(crcs, dtype=np.uint32) != self._index[name][positions])
        if len(wrong):
            self._damaged(positions[wrong[0]], side, what)

    def _damaged(self, position: int, side: str, what: str, cause: Optional[Exception] = None) -> None:
        text = (
            f"shard {self.path}: the {side} record of sample {self.ids[position]} is damaged or out of reach ({what})"
        )
        raise ValueError(f"{text}; `fairseq-adv cache verify` lists all damaged records") from cause
