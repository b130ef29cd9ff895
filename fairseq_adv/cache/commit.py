"""From sealed shards to a committed generation: uniqueness, carrying over, manifest."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any, Callable, Dict, Iterable, List, Optional, TypeVar

import numpy as np

from fairseq_adv.cache.exchange import exchange_shards
from fairseq_adv.cache.files import files
from fairseq_adv.cache.manifest import Manifest, store_manifest, write_current
from fairseq_adv.cache.owner import OwnerLock
from fairseq_adv.cache.placement import Places
from fairseq_adv.cache.reader import CacheReader
from fairseq_adv.cache.spec import CacheSpec
from fairseq_adv.cache.writer import GenerationWriter

logger = logging.getLogger(__name__)

CARRIED_AT_ONCE = 256
T = TypeVar("T")


def commit_everywhere(places: Places, owner: Optional[OwnerLock], make: Callable[[], Manifest]) -> Manifest:
    """Every rank: store what *make* returns on rank 0 in each place and point ``CURRENT`` at it.

    No place's ``CURRENT`` is touched before all places hold all shards and the manifest. *owner* is a keeper's lock:
    nothing is written into a directory that another run has taken.
    """
    what = "committing the cache"

    def checked(action: Callable[[], T]) -> T:
        assert owner is not None
        owner.check()
        return action()

    def make_here() -> Dict[str, Any]:
        manifest = checked(make)
        if not places.several:
            store_manifest(places.directory, manifest)
            checked(lambda: write_current(places.directory, manifest))
        return manifest.__dict__

    manifest = Manifest(**places.on_rank_zero(make_here, what))
    if places.several:
        exchange_shards(places, manifest.name, manifest.shards)  # those that rank 0 carried over
        places.on_keepers(lambda: checked(lambda: store_manifest(places.directory, manifest)), what)
        places.on_keepers(lambda: checked(lambda: write_current(places.directory, manifest)), what)
    return manifest


def make_manifest(
    directory: str,
    progress: Dict[str, Any],
    spec: CacheSpec,
    ema: float,
    parent: Optional[CacheReader],
    expected_ids: Optional[Iterable[int]],
    shard_bytes: int,
) -> Manifest:
    """The manifest of the generation in *progress*, to be stored once each place holds its shards.

    Those of *expected_ids* that were not written keep the *parent*'s record. Raises ``ValueError`` if two ranks wrote
    one sample or a shard is damaged.
    """
    written = written_ids(directory, progress, spec)
    manifest = Manifest(
        generation=progress["generation"],
        name=progress["name"],
        epoch=progress["epoch"],
        parent=None if parent is None else parent.manifest.generation,
        ema=ema,
        fields=dict(spec.to_json()),
        shards=list(progress["shards"]),
        num_records=len(written),
    )
    if parent is not None and expected_ids is not None:
        missing = np.setdiff1d(np.fromiter(map(int, expected_ids), dtype=np.int64), written)
        missing = missing[parent.contains(missing)]
        manifest.shards += _carry_over(missing, parent, os.path.join(directory, manifest.name), spec, shard_bytes)
        manifest.num_records += len(missing)
    manifest.checksum = manifest.own_checksum()
    return manifest


def written_ids(directory: str, progress: Dict[str, Any], spec: CacheSpec) -> np.ndarray:
    """The ids in the sealed shards of *progress*, ascending; raises ``ValueError`` if two ranks wrote the same one.

    A run that was resumed may write a sample once more: the later attempt counts.
    """
    probe = Manifest(0, progress["name"], 0, None, 0, dict(spec.to_json()), list(progress["shards"]))
    reader = CacheReader(directory, probe)
    reader.close()
    if not reader.shards:
        return reader.ids
    names = sorted({entry["writer"] for entry in probe.shards})
    counts = [len(shard.ids) for shard in reader.shards]
    ids = np.concatenate([shard.ids for shard in reader.shards])
    writer = np.repeat([names.index(entry["writer"]) for entry in probe.shards], counts)
    attempt = np.repeat([entry["attempt"] for entry in probe.shards], counts)
    order = np.lexsort((writer, attempt, ids))
    same = (np.diff(ids[order]) == 0) & (np.diff(attempt[order]) == 0) & (np.diff(writer[order]) != 0)
    if same.any():
        first = order[np.flatnonzero(same)[0] : np.flatnonzero(same)[0] + 2]
        raise ValueError(
            f"sample {ids[first[0]]} was written by two ranks ({names[writer[first[0]]]} and {names[writer[first[1]]]})"
        )
    return reader.ids


def _carry_over(
    ids: np.ndarray, parent: CacheReader, folder: str, spec: CacheSpec, shard_bytes: int
) -> List[Dict[str, Any]]:
    """Copy the parent's records of *ids* into shards of their own; their entries."""
    copier = GenerationWriter(folder, "carried", 0, spec, 0.0, None, shard_bytes)
    for first in range(0, len(ids), CARRIED_AT_ONCE):
        some = ids[first : first + CARRIED_AT_ONCE]
        rows = {side: parent.read(some, side) for side in spec.sides}
        for row, (sample_id, update) in enumerate(zip(some.tolist(), parent.update_nums(some))):
            copier.put([sample_id], update, {side: [values[row]] for side, values in rows.items()})
    copier.seal()
    if len(ids):
        logger.info("%d samples were not refreshed and keep their perturbation", len(ids))
    return copier.entries


def share_shards(directory: str, progress: Dict[str, Any], name: str) -> None:
    """Put the sealed shards of *progress* also into a new generation folder *name*, without copying if possible.

    So whatever a resumed run writes, another checkpoint still finds what it named.
    """
    source, target = os.path.join(directory, progress["name"]), os.path.join(directory, name)
    os.makedirs(target)
    for entry in progress["shards"]:
        try:
            files.link(os.path.join(source, entry["name"]), os.path.join(target, entry["name"]))
        except OSError:  # a file system without hard links
            shutil.copyfile(os.path.join(source, entry["name"]), os.path.join(target, entry["name"]))
    files.sync_directory(target)
