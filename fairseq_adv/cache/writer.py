"""One rank's share of a generation in progress: a buffer, and the shards sealed from it."""

from __future__ import annotations

import copy
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch
from torch import Tensor

from fairseq_adv.cache.files import crc32, files
from fairseq_adv.cache.reader import CacheReader
from fairseq_adv.cache.shard import Record, build_shard, index_crc
from fairseq_adv.cache.spec import CacheSpec

NORM_TOLERANCE = 1e-3  # of the radius; projections are exact to fp32


class GenerationWriter:
    """Averages new perturbations with the parent generation's and writes ``<folder>/<prefix>-<seq>.safetensors``."""

    def __init__(
        self,
        folder: str,
        prefix: str,
        attempt: int,
        spec: CacheSpec,
        ema: float,
        parent: Optional[CacheReader],
        shard_bytes: int,
    ) -> None:
        self.folder, self.prefix, self.attempt = folder, prefix, attempt
        self.spec, self.ema, self.shard_bytes = spec, ema, shard_bytes
        self.parent = copy.copy(parent)  # its own descriptors: another thread may read from the parent meanwhile
        self.entries: List[Dict[str, Any]] = []
        self._buffer: Dict[int, Record] = {}
        self._buffered = 0

    def put(self, ids: Sequence[int], update: int, sides: Mapping[str, Sequence[Tensor]]) -> List[Dict[str, Tensor]]:
        """Take in δ^S of *ids* and return their averages; a full buffer is sealed.

        The last call for an id within a refresh counts.
        """
        if sorted(sides) != sorted(self.spec.sides):
            raise ValueError(f"this cache holds the sides {self.spec.sides}, got {tuple(sides)}")
        for side, given in sides.items():
            if len(given) != len(ids):
                raise ValueError(f"{len(given)} {side} perturbations for {len(ids)} samples")
        averages = []
        for row, sample_id in enumerate(ids):
            new = {side: values[row].detach().float().cpu() for side, values in sides.items()}
            for side, values in new.items():
                self._check(int(sample_id), side, values)
            record = Record(int(sample_id), update, self._averaged(int(sample_id), new))
            old = self._buffer.pop(record.sample_id, None)
            self._buffered += _bytes(record) - (0 if old is None else _bytes(old))
            self._buffer[record.sample_id] = record
            averages.append(record.sides)
        if self._buffered >= self.shard_bytes:
            self.seal()
        return averages

    def _averaged(self, sample_id: int, new: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """C[i] ← α C[i] + (1 − α) δ^S in fp32; the first time C[i] = δ^S (ARCH, Algorithm 3)."""
        if self.parent is None or self.ema == 0 or not self.parent.contains([sample_id])[0]:
            return {side: values.clone() for side, values in new.items()}
        averaged = {}
        for side, values in new.items():
            old = self.parent.read([sample_id], side)[0]
            if old.shape != values.shape:
                raise ValueError(
                    f"sample {sample_id} has {len(values)} {side} tokens, {len(old)} when it was cached: the "
                    "data changed"
                )
            averaged[side] = self.ema * old + (1.0 - self.ema) * values
        return averaged

    def _check(self, sample_id: int, side: str, values: Tensor) -> None:
        dim = self.spec.fields.get(f"dim.{side}")
        if values.dim() != 2 or dim not in (None, values.size(1)):
            raise ValueError(
                f"the {side} perturbation of sample {sample_id} must be tokens x {dim or 'dim'}, "
                f"got {tuple(values.shape)}"
            )
        if not torch.isfinite(values).all():
            raise ValueError(
                f"the {side} perturbation of sample {sample_id} is not finite: it must not reach the cache"
            )
        if self.spec.norm == "linf":
            norm = values.abs().max().item() if values.numel() else 0.0
        else:
            norm = (values.norm(dim=1).max() if self.spec.level == "word" and len(values) else values.norm()).item()
        if norm > self.spec.epsilon * (1 + NORM_TOLERANCE):
            raise ValueError(
                f"the {side} perturbation of sample {sample_id} has norm {norm:g}, the radius is {self.spec.epsilon:g}"
            )

    def close(self) -> None:
        """Nothing more will be averaged."""
        if self.parent is not None:
            self.parent.close()

    def seal(self) -> None:
        """Write what is buffered as one shard, durably; nothing to do if the buffer is empty."""
        if not self._buffer:
            return
        name = f"{self.prefix}-{len(self.entries):05d}.safetensors"
        records = list(self._buffer.values())
        meta = {key: str(value) for key, value in self.spec.to_json().items()}
        data = build_shard(records, self.spec.sides, self.spec.epsilon, self.spec.dtype, meta)
        files.write_durably(os.path.join(self.folder, name), data)
        entry = {"name": name, "size": len(data), "n": len(records), "crc32": crc32(data)}
        self.entries.append({**entry, "index_crc32": index_crc(data), "writer": self.prefix, "attempt": self.attempt})
        self._buffer.clear()
        self._buffered = 0


def _bytes(record: Record) -> int:
    return sum(values.numel() * values.element_size() for values in record.sides.values())
