"""Reading a whole generation to find what is damaged in it."""

from __future__ import annotations

import json
import os
from typing import List

import numpy as np
from tqdm import tqdm

from fairseq_adv.cache.files import CHUNK, crc32, files
from fairseq_adv.cache.manifest import Manifest
from fairseq_adv.cache.reader import CacheReader
from fairseq_adv.cache.shard import ShardReader


def verify_generation(directory: str, manifest: Manifest) -> List[str]:
    """One line for each damaged shard and record of the generation; empty if all is well."""
    damaged: List[str] = []
    for entry in tqdm(manifest.shards, desc="shards", unit="shard", disable=None):
        path = os.path.join(directory, manifest.name, entry["name"])
        if not os.path.exists(path):
            damaged.append(f"shard {entry['name']} is missing: {entry['n']} samples are lost")
            continue
        fd = files.open_to_read(path)
        try:
            damaged += _verify_shard(directory, manifest, ShardReader(path, entry, manifest.epsilon), fd)
        finally:
            os.close(fd)
    return damaged


def _verify_shard(directory: str, manifest: Manifest, shard: ShardReader, fd: int) -> List[str]:
    entry = shard.entry
    try:
        shard.load_index(fd)
    except ValueError as error:
        return [f"shard {entry['name']}: {error}; it holds {entry['n']} samples{_unchecked_ids(fd)}"]
    alone = Manifest(0, manifest.name, 0, None, 0, manifest.fields, [dict(entry)])
    reader, damaged = CacheReader(directory, alone), []
    try:
        for sample_id in reader.ids.tolist():
            for side in reader.sides:
                try:
                    reader.read([sample_id], side)
                    reader.read_means([sample_id], side)
                except ValueError as error:
                    damaged.append(f"sample {sample_id}, {side}: {error}")
    finally:
        reader.close()
    if not damaged and _file_crc(fd) != entry["crc32"]:
        damaged.append(f"shard {entry['name']}: checksum differs from the manifest")
    return damaged


def _file_crc(fd: int) -> int:
    crc = offset = 0
    while data := os.pread(fd, CHUNK, offset):
        crc, offset = crc32(data, crc), offset + len(data)
    return crc


def _unchecked_ids(fd: int) -> str:
    """The ids that a damaged shard claims to hold, as far as they can be read."""
    try:
        header_end = 8 + int.from_bytes(os.pread(fd, 8, 0), "little")
        start, end = json.loads(os.pread(fd, min(header_end, CHUNK) - 8, 8))["ids"]["data_offsets"]
        ids = np.frombuffer(os.pread(fd, end - start, header_end + start), dtype=np.int64)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return ""
    text = ", ".join(map(str, sorted(ids.tolist())[:20]))
    return f" (as it says itself: {text}{', …' if len(ids) > 20 else ''})"
