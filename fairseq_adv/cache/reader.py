"""Reading a committed generation: :func:`open_cache` and :class:`CacheReader`."""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.cache.files import RETRY_ERRORS, files
from fairseq_adv.cache.manifest import MANIFEST, Manifest, read_current, read_manifest
from fairseq_adv.cache.shard import ShardReader, decode_rows

# A large cache has hundreds of shards and is read at random; a quarter of what the process may open is left to others.
MAX_DESCRIPTORS = min(512, max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
IdList = Union[Sequence[int], np.ndarray]
_FORMATS = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.int8}
_TORCH = {np.dtype(np.float32): torch.float32, np.dtype(np.float16): torch.float16, np.dtype(np.int8): torch.int8}


class StoredRows(NamedTuple):
    """Records one after the other as they are stored: ``rows`` (``T x D``), their ``scale`` (``T``, only if they are
    int8), and the number of rows of each (``n``, int64).
    """

    rows: Tensor
    scale: Tensor
    lengths: np.ndarray


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
        return self._search(ids)[1]

    def read(self, ids: IdList, side: str) -> List[Tensor]:
        """δ of each sample, ``len_i x D`` fp32, real tokens only, as it was stored (de-quantised).

        Raises ``ValueError`` for a side or samples that are not cached and for a damaged record.
        """
        stored = self.read_stored(ids, side)
        if not len(stored.lengths):
            return []
        rows = decode_rows(stored.rows, stored.scale, self.manifest.epsilon)
        return list(rows.split(stored.lengths.tolist()))

    def read_stored(self, ids: IdList, side: str, pinned: bool = False) -> StoredRows:
        """As :meth:`read`, but in the number format of the cache, and in *pinned* memory if that is wanted."""
        places = self.places_of(ids, side)
        if not len(places):
            none = torch.empty(0, self.dim(side), dtype=_FORMATS[str(self.manifest.fields["dtype"])])
            return StoredRows(none, torch.empty(0), np.zeros(0, dtype=np.int64))
        where, positions = self._where[places], self._rows[places]
        dtype, dim = self.shards[where[0]].layout(side)
        groups, lengths = _by_shard(where), np.empty(len(where), dtype=np.int64)
        for number, mine in groups:
            lengths[mine] = self.shards[number].lengths_at(positions[mine], side)
        stored = torch.empty(int(lengths.sum()), dim, dtype=_TORCH[dtype], pin_memory=pinned)
        scale = torch.empty(len(stored) if stored.dtype == torch.int8 else 0, pin_memory=pinned)
        rows, scales = _views(stored, lengths), _views(scale, lengths) if len(scale) else []
        for number, mine in groups:
            views = [rows[i] for i in mine], [scales[i] for i in mine] if scales else []
            self._reading(number, self.shards[number].read_rows, positions[mine], side, *views)
        return StoredRows(stored, scale, lengths)

    def dim(self, side: str) -> int:
        """Size of the embeddings of *side*."""
        return self.shards[0].layout(side)[1] if self.shards else int(self.manifest.fields.get(f"dim.{side}", 0))

    def read_means(self, ids: IdList, side: str) -> Tuple[Tensor, Tensor]:
        """The mean over tokens of each sample's δ, ``n x D``, and its ℓ2 norm over tokens × D, ``n``; both fp32."""
        places = self.places_of(ids, side)
        where, positions = self._where[places], self._rows[places]
        means, norms = torch.empty(len(where), self.dim(side)), np.empty(len(where), dtype=np.float32)
        views = _views(means, np.ones(len(where), dtype=np.int64))
        for number, mine in _by_shard(where):
            shard = self.shards[number]
            self._reading(number, shard.read_means, positions[mine], side, [views[i] for i in mine])
            norms[mine] = shard.norms(side)[positions[mine]]
        return means, torch.from_numpy(norms)

    def update_nums(self, ids: IdList) -> List[int]:
        """The update in which each sample's perturbation was last written."""
        places = self.places_of(ids, self.sides[0])
        return [int(self.shards[w].updates()[r]) for w, r in zip(self._where[places], self._rows[places])]

    def _search(self, ids: IdList) -> Tuple[np.ndarray, np.ndarray]:
        """Where in ``self.ids`` each of *ids* is, or would be, and whether it is there."""
        wanted = np.asarray(ids, dtype=np.int64)
        if len(self.ids) == 0:
            return np.zeros(wanted.shape, dtype=np.int64), np.zeros(wanted.shape, dtype=bool)
        places = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return places, self.ids[places] == wanted

    def places_of(self, ids: IdList, side: str = "") -> np.ndarray:
        """Where in ``ids`` each of *ids* is; raises ``ValueError`` for a *side* or samples that are not cached."""
        if side and side not in self.sides:
            raise ValueError(f"side {side!r} is not cached in {self.directory}: it holds {', '.join(self.sides)}")
        places, cached = self._search(ids)
        if not cached.all():
            missing = np.asarray(ids, dtype=np.int64)[~cached]
            raise ValueError(f"samples {missing[:10].tolist()} are not cached in {self.directory}")
        return places

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
        return {**self.__dict__, "_descriptors": OrderedDict()}

    def close(self) -> None:
        """Close all descriptors; reading again opens them again."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def _by_shard(where: np.ndarray) -> List[Tuple[int, np.ndarray]]:
    """Each shard that occurs in *where*, and at which places."""
    return [(int(number), np.flatnonzero(where == number)) for number in np.unique(where)]


def _views(tensor: Tensor, lengths: np.ndarray) -> List[memoryview]:
    """The memory of *tensor*, to be filled, cut into runs of *lengths* rows."""
    data = tensor.numpy().reshape(-1).view(np.uint8).data
    width = len(data) // max(1, len(tensor))
    ends = (lengths.cumsum() * width).tolist()
    return [data[start:end] for start, end in zip([0, *ends], ends)]
