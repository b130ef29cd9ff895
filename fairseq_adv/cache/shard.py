"""One shard: a write-once safetensors file of records, and reading single records out of it.

Tensors: ``ids`` and ``update`` i64[n]; for each side ``<side>`` [T, D] (the records' rows one after the other, δ/ε in
fp16, fp32 or int8 with ``<side>_scale`` f32[T]), ``<side>_off`` i64[n+1], ``<side>_mean`` f32[n, D] (mean over
tokens of δ), ``<side>_norm`` f32[n] (ℓ2 norm of δ), ``<side>_crc`` and ``<side>_mean_crc`` i64[n].
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from fairseq_adv.cache.files import crc32, files

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


def decode_rows(stored: np.ndarray, scale: np.ndarray, epsilon: float) -> np.ndarray:
    """The δ (fp32) that :func:`encode_rows` stored."""
    rows = stored.astype(np.float32)
    if stored.dtype == np.int8:
        rows *= scale[:, None]
    if epsilon > 0:
        rows *= np.float32(epsilon)
    return rows


def build_shard(
    records: Sequence[Record], sides: Sequence[str], epsilon: float, dtype: str, meta: Mapping[str, str]
) -> bytes:
    """The bytes of a shard that holds *records*."""
    tensors: Dict[str, Tensor] = {
        "ids": torch.tensor([r.sample_id for r in records], dtype=torch.int64),
        "update": torch.tensor([r.update for r in records], dtype=torch.int64),
    }
    for side in sides:
        rows = [r.sides[side].float() for r in records]
        lengths = torch.tensor([0] + [len(x) for x in rows], dtype=torch.int64)
        tensors[f"{side}_off"] = lengths.cumsum(0)
        stored, scale = encode_rows(torch.cat(rows), epsilon, dtype)
        tensors[side] = stored.contiguous()
        if dtype == "int8":
            tensors[f"{side}_scale"] = scale.contiguous()
        means = torch.stack([x.mean(dim=0) if len(x) else x.new_zeros(x.size(1)) for x in rows])
        tensors[f"{side}_mean"] = means.contiguous()
        tensors[f"{side}_norm"] = torch.stack([x.norm() for x in rows])
        offsets = tensors[f"{side}_off"].tolist()
        crcs = []
        for start, end in zip(offsets, offsets[1:]):
            data = stored[start:end].numpy().tobytes()
            crcs.append(crc32(data + (scale[start:end].numpy().tobytes() if dtype == "int8" else b"")))
        tensors[f"{side}_crc"] = torch.tensor(crcs, dtype=torch.int64)
        tensors[f"{side}_mean_crc"] = torch.tensor([crc32(m.numpy().tobytes()) for m in means], dtype=torch.int64)
    return save(tensors, metadata=dict(meta))


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
    """Random access to the records of one shard; the descriptor is opened on first use in each process."""

    path: str
    entry: Mapping[str, Any]  # name, size, crc32, index_crc32, n: as in the manifest
    epsilon: float
    _header: Dict[str, Any] = field(default_factory=dict, repr=False)
    _index: Dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def load_index(self, fd: int) -> None:
        """Read and check header and index; raises ``ValueError`` naming the shard if they are damaged."""
        size = os.fstat(fd).st_size
        if size != self.entry["size"]:
            raise ValueError(
                f"shard {self.path} has {size} bytes, its manifest says {self.entry['size']}: it is damaged"
            )
        length = files.read_exactly(fd, 8, 0, self.path)
        header_end = 8 + int.from_bytes(length, "little")
        if header_end > size:
            raise ValueError(f"shard {self.path} has a damaged header")
        raw = files.read_exactly(fd, header_end - 8, 8, self.path)
        crc = crc32(length + raw)
        try:
            header = json.loads(raw)
            names = sorted(_index_names(header))
            index = {}
            for name in names:
                start, end = header[name]["data_offsets"]
                data = files.read_exactly(fd, end - start, header_end + start, self.path)
                crc = crc32(crc.to_bytes(4, "little") + data)
                index[name] = np.frombuffer(data, dtype=_NUMPY[header[name]["dtype"]])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"shard {self.path} has a damaged header or index: {error}") from error
        if crc != self.entry["index_crc32"]:
            raise ValueError(f"shard {self.path} has a damaged header or index: checksum differs")
        self._header, self._index = {**header, "__end__": header_end}, index

    @property
    def loaded(self) -> bool:
        return bool(self._header)

    @property
    def ids(self) -> np.ndarray:
        return self._index["ids"]

    def updates(self) -> np.ndarray:
        return self._index["update"]

    def _rows(self, fd: int, name: str, start: int, end: int) -> np.ndarray:
        info = self._header[name]
        dtype, shape = np.dtype(_NUMPY[info["dtype"]]), info["shape"]
        width = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        offset = self._header["__end__"] + info["data_offsets"][0] + start * width
        data = files.read_exactly(fd, (end - start) * width, offset, self.path)
        return np.frombuffer(data, dtype=dtype).reshape([end - start, *shape[1:]])

    def read(self, fd: int, position: int, side: str) -> np.ndarray:
        """δ of the record at *position*: ``len x D`` fp32; checks its CRC."""
        start, end = (int(x) for x in self._index[f"{side}_off"][position : position + 2])
        stored = self._rows(fd, side, start, end)
        scale = self._rows(fd, f"{side}_scale", start, end) if stored.dtype == np.int8 else np.zeros(0, np.float32)
        if crc32(stored.tobytes() + scale.tobytes()) != self._index[f"{side}_crc"][position]:
            self._damaged(position, side)
        return decode_rows(stored, scale, self.epsilon)

    def read_mean(self, fd: int, position: int, side: str) -> np.ndarray:
        """The mean over tokens of the record's δ: ``D`` fp32; checks its CRC."""
        mean = self._rows(fd, f"{side}_mean", position, position + 1)[0]
        if crc32(mean.tobytes()) != self._index[f"{side}_mean_crc"][position]:
            self._damaged(position, side)
        return mean

    def norm(self, position: int, side: str) -> float:
        """ℓ2 norm of the record's δ."""
        return float(self._index[f"{side}_norm"][position])

    def _damaged(self, position: int, side: str) -> None:
        raise ValueError(
            f"shard {self.path}: the {side} record of sample {self.ids[position]} is damaged (checksum differs); "
            "`fairseq-adv cache verify` lists all damaged records"
        )
