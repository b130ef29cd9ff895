"""Reading a committed generation: :func:`open_cache` and :class:`CacheReader`."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.cache.files import files
from fairseq_adv.cache.manifest import Manifest, read_current, read_manifest
from fairseq_adv.cache.shard import ShardReader

MAX_DESCRIPTORS = 64
IdList = Union[Sequence[int], np.ndarray]


def open_cache(directory: Union[str, os.PathLike], generation: Optional[int] = None) -> CacheReader:
    """The perturbations in cache *directory*: those of its current generation, or of number *generation*.

    >>> reader = open_cache("checkpoints/perturbations")            # doctest: +SKIP
    >>> reader.read([4, 17], "src")                                 # doctest: +SKIP
    [tensor of len_4 x D, tensor of len_17 x D]

    Raises ``FileNotFoundError`` if there is no such directory or generation, ``ValueError`` for a damaged one.
    """
    directory = os.fspath(directory)
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{directory} is not a cache directory")
    if generation is not None:
        for name in sorted(os.listdir(directory)):
            if name.startswith(f"gen-{generation:06d}-") and os.path.exists(
                os.path.join(directory, name, "MANIFEST.json")
            ):
                return CacheReader(directory, read_manifest(directory, name))
        raise FileNotFoundError(f"{directory} holds no committed generation {generation}")
    current = read_current(directory)
    if current is None:
        raise FileNotFoundError(f"{directory} holds no committed generation: its first refresh has not ended")
    return CacheReader(directory, read_manifest(directory, current["name"], current["manifest_crc32"]))


class CacheReader:
    """Random access to one generation; safe to hand to forked and spawned workers.

    ``manifest`` describes the generation, ``sides`` is a subset of ``("src", "tgt")``, ``ids`` (int64, ascending)
    are the cached samples. Every record is checked against its CRC when it is read.
    """

    def __init__(self, directory: str, manifest: Manifest) -> None:
        self.directory, self.manifest = directory, manifest
        self.sides = tuple(manifest.sides)
        self._shards = [
            ShardReader(os.path.join(directory, manifest.name, entry["name"]), entry, manifest.epsilon)
            for entry in manifest.shards
        ]
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._pid = os.getpid()
        for number, shard in enumerate(self._shards):
            shard.load_index(self._descriptor(number))
        self._build_index()

    def _build_index(self) -> None:
        ids = [shard.ids for shard in self._shards]
        where = [np.full(len(x), number, dtype=np.int32) for number, x in enumerate(ids)]
        rows = [np.arange(len(x), dtype=np.int32) for x in ids]
        all_ids = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
        # a record written twice within a refresh counts in its last version, which stands further back
        order = np.argsort(all_ids, kind="stable")
        last = np.append(all_ids[order][1:] != all_ids[order][:-1], True) if len(order) else np.zeros(0, dtype=bool)
        keep = order[last]
        self.ids = all_ids[keep]
        self._where = np.concatenate(where)[keep] if ids else np.zeros(0, dtype=np.int32)
        self._rows = np.concatenate(rows)[keep] if ids else np.zeros(0, dtype=np.int32)

    def contains(self, ids: IdList) -> np.ndarray:
        """Whether each of *ids* is cached: ``n`` (bool)."""
        wanted = np.asarray(ids, dtype=np.int64)
        if len(self.ids) == 0:
            return np.zeros(wanted.shape, dtype=bool)
        places = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return self.ids[places] == wanted

    def read(self, ids: IdList, side: str) -> List[Tensor]:
        """δ of each sample, ``len_i x D`` fp32, real tokens only, as it was stored (de-quantised).

        Raises ``ValueError`` for a side or samples that are not cached and for a damaged record.
        """
        places = self._places(ids, side)
        return [
            torch.from_numpy(self._shards[w].read(self._descriptor(w), r, side))
            for w, r in zip(self._where[places].tolist(), self._rows[places].tolist())
        ]

    def read_means(self, ids: IdList, side: str) -> Tuple[Tensor, Tensor]:
        """The mean over tokens of each sample's δ, ``n x D``, and its ℓ2 norm over tokens × D, ``n``; both fp32."""
        places = self._places(ids, side)
        pairs = list(zip(self._where[places].tolist(), self._rows[places].tolist()))
        means = [self._shards[w].read_mean(self._descriptor(w), r, side) for w, r in pairs]
        norms = [self._shards[w].norm(r, side) for w, r in pairs]
        dim = int(self.manifest.fields.get(f"dim.{side}", 0))
        stacked = np.stack(means) if means else np.zeros((0, dim), dtype=np.float32)
        return torch.from_numpy(stacked), torch.tensor(norms, dtype=torch.float32)

    def update_nums(self, ids: Sequence[int]) -> List[int]:
        """The update in which each sample's perturbation was last written."""
        places = self._places(ids, self.sides[0])
        return [int(self._shards[w].updates()[r]) for w, r in zip(self._where[places], self._rows[places])]

    def _places(self, ids: IdList, side: str) -> np.ndarray:
        if side not in self.sides:
            raise ValueError(f"side {side!r} is not cached in {self.directory}: it holds {', '.join(self.sides)}")
        wanted = np.asarray(ids, dtype=np.int64)
        missing = wanted[~self.contains(wanted)]
        if len(missing):
            raise ValueError(f"samples {missing[:10].tolist()} are not cached in {self.directory}")
        return np.searchsorted(self.ids, wanted)

    def _descriptor(self, number: int) -> int:
        if self._pid != os.getpid():  # a forked child opens its own
            self._descriptors, self._pid = OrderedDict(), os.getpid()
        fd = self._descriptors.get(number)
        if fd is None:
            while len(self._descriptors) >= MAX_DESCRIPTORS:
                os.close(self._descriptors.popitem(last=False)[1])
            path = self._shards[number].path
            fd = files.retrying(lambda: files.open(path, os.O_RDONLY), path)
            self._descriptors[number] = fd
        self._descriptors.move_to_end(number)
        return fd

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_descriptors": OrderedDict()}

    def close(self) -> None:
        """Close all descriptors; reading again opens them again."""
        if self._pid == os.getpid():
            while self._descriptors:
                os.close(self._descriptors.popitem()[1])
