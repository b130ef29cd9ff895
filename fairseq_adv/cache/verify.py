"""Reading a whole generation to find what is damaged in it."""

from __future__ import annotations

import os
from typing import List

from tqdm import tqdm

from fairseq_adv.cache.files import crc32
from fairseq_adv.cache.manifest import read_file
from fairseq_adv.cache.reader import CacheReader


def verify_generation(reader: CacheReader) -> List[str]:
    """One line for each damaged shard and record of *reader*'s generation; empty if all is well."""
    damaged = []
    folder = os.path.join(reader.directory, reader.manifest.name)
    for entry in tqdm(reader.manifest.shards, desc="shards", unit="shard", disable=None):
        data = read_file(os.path.join(folder, entry["name"]))
        if len(data) != entry["size"] or crc32(data) != entry["crc32"]:
            damaged.append(f"shard {entry['name']}: checksum differs from the manifest")
    for sample_id in tqdm(reader.ids.tolist(), desc="records", unit="record", disable=None):
        for side in reader.sides:
            try:
                reader.read([sample_id], side)
                reader.read_means([sample_id], side)
            except ValueError as error:
                damaged.append(f"sample {sample_id}, {side}: {error}")
    return damaged
