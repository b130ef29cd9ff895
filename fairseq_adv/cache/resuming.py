"""What a checkpoint says of the cache, and going back to it in every place: what one lacks comes from the others."""

from __future__ import annotations

import json
import logging
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from fairseq_adv.cache.commit import share_shards, written_ids
from fairseq_adv.cache.exchange import exchange_shards
from fairseq_adv.cache.files import crc32
from fairseq_adv.cache.manifest import CURRENT, MANIFEST, Manifest, read_manifest, store_manifest, write_current
from fairseq_adv.cache.placement import Places
from fairseq_adv.cache.retention import generation_folders
from fairseq_adv.cache.spec import CacheSpec

logger = logging.getLogger(__name__)

WHAT = "resuming the cache"
ADVICE = (
    "put the directory back, or tell where it is with --cache-dir, or give up what was cached and count epochs anew "
    "with --reset-dataloader"
)
Part = Dict[str, Any]  # of a checkpoint: committed, or in progress


class Found(NamedTuple):
    """What one place holds of a checkpoint's cache (the manifest; the folder in progress), and what is wrong."""

    manifest: Optional[Dict[str, Any]]
    progress: bool
    problems: List[str]


def checkpoint_state(manifest: Optional[Manifest], progress: Optional[Part]) -> Dict[str, Any]:
    """What a checkpoint says of the committed generation and of the one in progress, as plain containers."""
    committed = None
    if manifest is not None:
        committed = {
            "generation": manifest.generation,
            "name": manifest.name,
            "manifest_crc32": crc32(manifest.to_bytes()),
        }
    return {"committed": committed, "in_progress": None if progress is None else json.loads(json.dumps(progress))}


def restore(
    places: Places, state: Mapping[str, Any], spec: CacheSpec, new_name: str
) -> Tuple[Optional[Manifest], Optional[Dict[str, Any]]]:
    """Every rank: the manifest and the refresh in progress that *state* names, in every place once this returns.

    The refresh goes on in a folder of its own, *new_name*. Raises ``ValueError``, on all ranks, if no place holds what
    the checkpoint names, or one holds it damaged.
    """
    committed, progress = state.get("committed"), state.get("in_progress")
    found = places.on_keepers(lambda: _look(places.directory, committed, progress), WHAT)
    manifest = None
    if committed is not None:
        manifest = Manifest(**_first_whole([(place, place.manifest) for place in found]))
        _fetch(places, committed, manifest.shards)
    if progress is not None:
        _first_whole([(place, place.progress) for place in found])
        _fetch(places, progress, progress["shards"])
    places.on_keepers(lambda: _settle(places.directory, manifest, progress, spec, new_name), WHAT)
    if progress is not None:
        progress = {**progress, "name": new_name, "attempt": int(progress["attempt"]) + 1}
    return manifest, progress


def _look(directory: str, committed: Optional[Part], progress: Optional[Part]) -> Found:
    manifest, problems, folders = None, [], generation_folders(directory)
    for part in filter(None, (committed, progress)):
        if part["name"] not in folders:
            problems.append(
                f"the checkpoint needs generation {part['generation']} of the cache ({part['name']}), which "
                f"{directory} does not hold: {ADVICE}"
            )
    if committed is not None and committed["name"] in folders:
        try:
            manifest = read_manifest(directory, committed["name"], committed["manifest_crc32"]).__dict__
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return Found(manifest, progress is not None and progress["name"] in folders, problems)


def _first_whole(places: List[Tuple[Found, Any]]) -> Any:
    """The first thing that a place holds; if none does, what is wrong in the first."""
    for _, thing in places:
        if thing:
            return thing
    raise ValueError(f"{WHAT} failed: {places[0][0].problems[0]}")


def _fetch(places: Places, part: Part, shards: List[Dict[str, Any]]) -> None:
    needed = f", but the checkpoint needs generation {part['generation']} of the cache: {ADVICE}"
    sent = exchange_shards(places, part["name"], shards, needed)
    if sent and places.rank == 0:
        logger.info("nodes that lacked shards of generation %s were sent %.3f GB", part["generation"], sent / 1e9)


def _settle(
    directory: str, manifest: Optional[Manifest], progress: Optional[Part], spec: CacheSpec, new_name: str
) -> None:
    """A keeper, whose place holds all shards by now: the manifest, if it came from elsewhere, and the new folder."""
    if manifest is not None and not _is_there(directory, manifest):
        store_manifest(directory, manifest)
        if not os.path.exists(os.path.join(directory, CURRENT)):
            write_current(directory, manifest)
    if progress is not None:
        written_ids(directory, progress, spec)
        share_shards(directory, progress, new_name)


def _is_there(directory: str, manifest: Manifest) -> bool:
    if not os.path.exists(os.path.join(directory, manifest.name, MANIFEST)):
        return False
    try:
        return read_manifest(directory, manifest.name).to_bytes() == manifest.to_bytes()
    except ValueError:
        return False
