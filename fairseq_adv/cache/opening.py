"""Opening a cache directory for writing: ownership, room on the disk, configuration."""

from __future__ import annotations

import json
import logging
import os
import shutil
from contextlib import suppress
from typing import List, Optional

from fairseq_adv.cache.comm import CacheError
from fairseq_adv.cache.files import files
from fairseq_adv.cache.manifest import SPEC, read_file
from fairseq_adv.cache.owner import OwnerLock
from fairseq_adv.cache.placement import Places
from fairseq_adv.cache.retention import generation_folders, remember_folder
from fairseq_adv.cache.spec import CacheSpec, changed_options, differing_fields

logger = logging.getLogger(__name__)

TOLD = "told"  # in SPEC.json: options behind the fields, for the message of a refusal


def open_everywhere(
    places: Places, spec: CacheSpec, run_id: str, takeover: bool, expected_bytes: int, checkpoint_folder: str
) -> Optional[OwnerLock]:
    """Every rank: own the directory of each place; a keeper's lock, ``None`` on other ranks.

    Raises ``ValueError``, on all ranks, if :func:`open_directory` does in any place; no place is owned then.
    """
    if places.several:
        check_same_cache(places, spec)
    owner: List[OwnerLock] = []

    def open_here() -> None:
        owner.append(open_directory(places.directory, spec, run_id, takeover, expected_bytes, checkpoint_folder))

    try:
        places.on_keepers(open_here, "opening the cache")
    except CacheError:  # of another place, perhaps
        for lock in owner:
            lock.release()
        raise
    return owner[0] if owner else None


def open_directory(
    directory: str, spec: CacheSpec, run_id: str, takeover: bool, expected_bytes: int, checkpoint_folder: str
) -> OwnerLock:
    """Own cache *directory*, which is created if need be.

    Raises ``ValueError`` if it cannot be written, belongs to another run or is of another configuration, or if the
    disk has no room for *expected_bytes*; nothing is owned then.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        owner = OwnerLock(directory, run_id, takeover)
    except OSError as error:
        raise ValueError(f"cannot write to cache directory {directory}: {os.strerror(error.errno or 0)}") from error
    try:
        _remove_torn_files(directory)
        check_room(directory, expected_bytes)
        check_configuration(directory, spec)
        if checkpoint_folder:
            remember_folder(directory, checkpoint_folder)
    except BaseException:
        owner.release()
        raise
    return owner


def check_same_cache(places: Places, spec: CacheSpec) -> None:
    """Every rank: raise ``ValueError`` if the ranks would cache different things, since their nodes' data differ."""
    specs = places.comm.all_gather_object(spec.to_json())
    for rank, other in enumerate(specs):
        differing = differing_fields(specs[0], other)
        if differing:
            raise ValueError(
                f"rank {rank} has other data or options than rank 0 ({'; '.join(differing)}): every node needs the same"
            )


def _remove_torn_files(directory: str) -> None:
    """What a killed writer left of files that were about to get their name."""
    for name in os.listdir(directory):
        if ".tmp-" in name:
            with suppress(OSError):
                os.unlink(os.path.join(directory, name))


def check_room(directory: str, expected_bytes: int) -> None:
    """Raise ``ValueError`` unless *expected_bytes* fit, counting in what *directory* holds already."""
    if expected_bytes <= 0:
        return
    free = shutil.disk_usage(directory).free
    held = folder_bytes(*(os.path.join(directory, name) for name in generation_folders(directory)))
    logger.info(
        "two generations of cached perturbations take up to %.2f GB in %s (%.2f GB there, %.2f GB free)",
        *(expected_bytes / 1e9, directory, held / 1e9, free / 1e9),
    )
    if expected_bytes > free + held:
        raise ValueError(
            f"{directory} has {free / 1e9:.2f} GB free, two generations of this cache take up to "
            f"{expected_bytes / 1e9:.2f} GB: choose another --cache-dir, a smaller --cache-proportion or "
            "--cache-dtype int8"
        )


def folder_bytes(*folders: str) -> int:
    """Bytes of the files in *folders*; a shard that several generations share counts once."""
    sizes = {}
    for folder in folders:
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for stat in (entry.stat() for entry in entries if entry.is_file()):
                sizes[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(sizes.values())


def check_configuration(directory: str, spec: CacheSpec) -> None:
    """Raise ``ValueError`` with the options that changed if *directory* holds a cache that is not of *spec*."""
    path = os.path.join(directory, SPEC)
    if not os.path.exists(path):
        content = {**spec.to_json(), TOLD: dict(spec.told)}
        files.write_durably(path, json.dumps(content, indent=1, sort_keys=True).encode())
        return
    try:
        there = dict(json.loads(read_file(path)))
        told = dict(there.pop(TOLD, {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete {directory} to start anew") from error
    changes = changed_options(there, told, spec)
    if changes:
        raise ValueError(
            f"cache directory {directory} is of another configuration ({'; '.join(changes)}): give the old value, "
            "or start a cache anew with another --cache-dir (and, to go on from a checkpoint of this run, with "
            "--reset-dataloader, which counts epochs anew)"
        )
