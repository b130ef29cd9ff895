"""Reading a committed generation: :func:`open_cache` and :class:`CacheReader`."""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.cache.files import RETRY_ERRORS, files
from fairseq_adv.cache.manifest import MANIFEST, Manifest, read_current, read_manifest
from fairseq_adv.cache.shard import ShardReader, decode_rows

# A large cache has hundreds of shards and is read at random; a quarter of what the process may open is left to others.
MAX_DESCRIPTORS = min(512, max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
# Means of a small cache are held (65 MB for 16 thousand pairs with D = 512); those of a large one stay on the disk.
MEANS_IN_MEMORY = 80 << 20
IdList = Union[Sequence[int], np.ndarray]
_TORCH = {np.dtype(np.float32): torch.float32, np.dtype(np.float16): torch.float16, np.dtype(np.int8): torch.int8}


def open_cache(directory: Union[str, os.PathLike], generation: Optional[int] = None) -> CacheReader:
    """The perturbations in cache *directory*: those of its current generation, or of number *generation*.

    >>> reader = open_cache("checkpoints/perturbations")            # doctest: +SKIP
    >>> reader.read([4, 17], "src")                                 # doctest: +SKIP
    [tensor of len_4 x D, tensor of len_17 x D]

    If a run was resumed from an older checkpoint, a number may belong to several generations: the current one goes
    first, then the latest. Raises ``FileNotFoundError`` if there is no such directory or generation, ``ValueError``
    for a damaged one.
    """
    directory = os.fspath(directory)
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{directory} is not a cache directory")
    current = read_current(directory)
    if generation is not None and (current is None or current["generation"] != generation):
        manifests = [
            os.path.join(directory, name, MANIFEST)
            for name in os.listdir(directory)
            if name.startswith(f"gen-{generation:06d}-")
        ]
        committed = sorted(filter(os.path.exists, manifests), key=os.path.getmtime)
        if not committed:
            raise FileNotFoundError(f"{directory} holds no committed generation {generation}")
        return CacheReader(directory, read_manifest(directory, os.path.basename(os.path.dirname(committed[-1]))))
    if current is None:
        raise FileNotFoundError(f"{directory} holds no committed generation: its first refresh has not ended")
    return CacheReader(directory, read_manifest(directory, current["name"], current["manifest_crc32"]))


class CacheReader:
    """Random access to one generation; safe to hand to forked and spawned workers (not to several threads).

    ``manifest`` describes the generation, ``sides`` is a subset of ``("src", "tgt")``, ``ids`` (int64, ascending)
    are the cached samples. Every record is checked against its CRC when it is read.
    """

    def __init__(self, directory: str, manifest: Manifest) -> None:
        self.directory, self.manifest = directory, manifest
        self.sides = tuple(manifest.sides)
        self.shards = [
            ShardReader(os.path.join(directory, manifest.name, entry["name"]), entry, manifest.epsilon)
            for entry in manifest.shards
        ]
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._means: Dict[str, Tuple[Tensor, Tensor]] = {}
        try:
            for number, shard in enumerate(self.shards):
                self._reading(number, shard.load_index)
        except BaseException:
            self.close()
            raise
        self._build_index()

    def _build_index(self) -> None:
        counts = [len(shard.ids) for shard in self.shards]
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *(shard.ids for shard in self.shards)])
        # a record written twice within a refresh counts in its last version, which stands further back
        order = np.argsort(ids, kind="stable")
        keep = order[np.append(ids[order][1:] != ids[order][:-1], True)] if len(order) else order
        self.ids = ids[keep]
        self._where = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[keep]
        rows = [np.arange(count, dtype=np.int32) for count in counts]
        self._rows = np.concatenate([np.zeros(0, dtype=np.int32), *rows])[keep]

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
        pairs = self._pairs(ids, side)
        if not pairs:
            return []
        dtype, dim = self.shards[pairs[0][0]].layout(side)
        lengths = [self.shards[w].lengths_at(r, side) for w, r in pairs]
        stored = torch.empty(sum(lengths), dim, dtype=_TORCH[dtype])
        scale = torch.empty(len(stored) if stored.dtype == torch.int8 else 0)
        rows, scales = _bytes_of(stored), _bytes_of(scale)
        width, done = dim * dtype.itemsize, 0
        for (where, row), length in zip(pairs, lengths):
            end, shard = done + length, self.shards[where]
            places = rows[done * width : end * width], scales[4 * done : 4 * end]
            self._reading(where, shard.read_rows, row, side, *places)
            done = end
        return list(decode_rows(stored, scale, self.manifest.epsilon).split(lengths))

    def read_means(self, ids: IdList, side: str) -> Tuple[Tensor, Tensor]:
        """The mean over tokens of each sample's δ, ``n x D``, and its ℓ2 norm over tokens × D, ``n``; both fp32.

        Where the means of all samples fit into ``MEANS_IN_MEMORY`` bytes, the first call reads them all.
        """
        pairs = self._pairs(ids, side)
        dim = self.shards[0].layout(side)[1] if self.shards else int(self.manifest.fields.get(f"dim.{side}", 0))
        if 4 * dim * len(self.ids) * len(self.sides) > MEANS_IN_MEMORY:
            return self._read_means(pairs, side, dim)
        if side not in self._means:
            self._means[side] = self._read_means(self._pairs(self.ids, side), side, dim)
        places = torch.from_numpy(np.searchsorted(self.ids, np.asarray(ids, dtype=np.int64)))
        means, norms = self._means[side]
        return means[places], norms[places]

    def _read_means(self, pairs: List[Tuple[int, int]], side: str, dim: int) -> Tuple[Tensor, Tensor]:
        means, norms = torch.empty(len(pairs), dim), np.empty(len(pairs), dtype=np.float32)
        data = _bytes_of(means)
        for number, (where, row) in enumerate(pairs):
            shard = self.shards[where]
            self._reading(where, shard.read_mean, row, side, data[4 * dim * number : 4 * dim * (number + 1)])
            norms[number] = shard.norms(side)[row]
        return means, torch.from_numpy(norms)

    def update_nums(self, ids: IdList) -> List[int]:
        """The update in which each sample's perturbation was last written."""
        return [int(self.shards[w].updates()[r]) for w, r in self._pairs(ids, self.sides[0])]

    def _pairs(self, ids: IdList, side: str) -> List[Tuple[int, int]]:
        """Shard and position in it of each sample."""
        if side not in self.sides:
            raise ValueError(f"side {side!r} is not cached in {self.directory}: it holds {', '.join(self.sides)}")
        wanted = np.asarray(ids, dtype=np.int64)
        missing = wanted[~self.contains(wanted)]
        if len(missing):
            raise ValueError(f"samples {missing[:10].tolist()} are not cached in {self.directory}")
        places = np.searchsorted(self.ids, wanted)
        return list(zip(self._where[places].tolist(), self._rows[places].tolist()))

    def _reading(self, number: int, action: Callable[..., None], *args: Any) -> None:
        """``action(descriptor, *args)`` on shard *number*; waits for a late file and replaces a stale descriptor."""

        def again() -> None:
            try:
                action(self._descriptor(number), *args)
            except OSError as error:
                if error.errno == errno.ESTALE and number in self._descriptors:
                    os.close(self._descriptors.pop(number))
                raise

        try:
            again()
        except OSError as error:
            if error.errno not in RETRY_ERRORS:
                raise
            files.retrying(again, self.shards[number].path)

    def _descriptor(self, number: int) -> int:
        fd = self._descriptors.get(number)
        if fd is None:
            while len(self._descriptors) >= MAX_DESCRIPTORS:
                os.close(self._descriptors.popitem(last=False)[1])
            fd = self._descriptors[number] = self._open(self.shards[number].path)
        self._descriptors.move_to_end(number)
        return fd

    def _open(self, path: str) -> int:
        try:
            return files.open(path, os.O_RDONLY)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._descriptors:
                raise
            self.close()  # the process may open fewer files than we would like to keep
            return files.open(path, os.O_RDONLY)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_descriptors": OrderedDict(), "_means": {}}

    def close(self) -> None:
        """Close all descriptors; reading again opens them again."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of *tensor*, to be filled."""
    return tensor.numpy().reshape(-1).view(np.uint8).data
