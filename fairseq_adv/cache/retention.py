"""Which generations the checkpoints on disk need; nothing else decides what may be deleted.

A checkpoint names its generations in its pickled part, which is a small member of the file: their names are searched
there, without unpickling anything and without reading parameters. ``CHECKPOINTS.json`` lists the folders to look in.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zipfile
from contextlib import suppress
from typing import Dict, List, Optional, Set, Tuple

from fairseq_adv.cache.files import CHUNK, files
from fairseq_adv.cache.manifest import MANIFEST, read_current, read_file
from fairseq_adv.cache.owner import OwnerLock
from fairseq_adv.cache.placement import Places

logger = logging.getLogger(__name__)

FOLDERS = "CHECKPOINTS.json"
_NAME = re.compile(rb"gen-\d{6,}-[0-9a-f]{8}")
_known: Dict[Tuple[str, int, int], Set[str]] = {}  # path, time and size of a checkpoint -> its generations


def generation_folders(directory: str) -> List[str]:
    """Names of all generation folders in cache *directory*, committed or not."""
    return sorted(name for name in os.listdir(directory) if _NAME.fullmatch(name.encode()))


def remember_folder(directory: str, folder: str) -> None:
    """Note that checkpoints in *folder* may name generations of cache *directory*."""
    entry = {"absolute": os.path.abspath(folder), "relative": os.path.relpath(folder, directory)}
    path = os.path.join(directory, FOLDERS)
    entries = _entries(directory)
    if entry not in entries:
        files.write_durably(path, json.dumps([*entries, entry], indent=1).encode())


def _entries(directory: str) -> List[Dict[str, str]]:
    path = os.path.join(directory, FOLDERS)
    if not os.path.exists(path):
        return []
    try:
        return list(json.loads(read_file(path)))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): restore it, or delete it and name the checkpoints") from error


def checkpoint_folders(directory: str) -> List[str]:
    """The folders whose checkpoints may need cache *directory*; each also where it lies after both were moved."""
    folders = set()
    for entry in _entries(directory):
        folders |= {entry["absolute"], os.path.abspath(os.path.join(directory, entry["relative"]))}
    return sorted(folder for folder in folders if os.path.isdir(folder))


def named_by_checkpoint(path: str) -> Set[str]:
    """The generation folders that the checkpoint at *path* names."""
    stat = os.stat(path)
    key = (os.path.abspath(path), stat.st_mtime_ns, stat.st_size)
    if key not in _known:
        _known[key] = {name.decode() for name in _search(path)}
    return _known[key]


def _search(path: str) -> Set[bytes]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            return {name for member in pickles for name in _NAME.findall(archive.read(member))}
    found, tail = set(), b""  # torch's format of old, or a file that is being written
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found |= set(_NAME.findall(tail + chunk))
            tail = chunk[-64:]
    return found


def needed_generations(directory: str) -> Set[str]:
    """What the checkpoints in the known folders, and ``CURRENT``, name."""
    current = read_current(directory)
    needed = set() if current is None else {current["name"]}
    for folder in checkpoint_folders(directory):
        for name in os.listdir(folder):
            if name.endswith(".pt"):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    needed |= named_by_checkpoint(os.path.join(folder, name))
    return needed


def delete_generation(directory: str, name: str) -> None:
    """Delete a generation folder; from the first moment on it no longer looks committed."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, name, MANIFEST))
    shutil.rmtree(os.path.join(directory, name))


def delete_others(directory: str, needed: Set[str], owner: OwnerLock) -> List[str]:
    """Delete the generations of *directory* that neither *needed* nor ``CURRENT`` nor a checkpoint names; their names.

    What goes wrong is logged only: nothing depends on it. Nothing is deleted if *owner* lost the directory.
    """
    deleted: List[str] = []
    try:
        if set(generation_folders(directory)) <= needed:
            return deleted
        owner.check()
        needed = needed | needed_generations(directory)
        for name in generation_folders(directory):
            if name not in needed:
                delete_generation(directory, name)
                deleted.append(name)
    except (OSError, ValueError) as error:
        logger.warning("superseded perturbations stay in %s: %s", directory, error)
    if deleted:
        logger.info("deleted superseded perturbations: %s", ", ".join(deleted))
    return deleted


def needed_on_rank_zero(places: Places) -> Optional[Set[str]]:
    """Every rank: what the checkpoints that rank 0 sees need; ``None`` if it cannot tell."""
    needed: Optional[Set[str]] = None
    if places.rank == 0:
        try:
            needed = needed_generations(places.directory)
        except (OSError, ValueError) as error:
            logger.warning("superseded perturbations stay in %s: %s", places.directory, error)
    return places.comm.broadcast_object(needed)
