"""Manifests: what makes a set of shards a generation, and the pointer to the current one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, List, Optional

from fairseq_adv.cache.files import crc32, files

CURRENT, MANIFEST, SPEC = "CURRENT", "MANIFEST.json", "SPEC.json"


@dataclass
class Manifest:
    """One committed generation: its number, folder, refresh epoch, parent, configuration and shards."""

    generation: int
    name: str  # folder inside the cache directory
    epoch: int
    parent: Optional[int]
    ema: float
    fields: Dict[str, Any]
    shards: List[Dict[str, Any]] = field(default_factory=list)
    num_records: int = 0
    checksum: Optional[int] = None  # CRC-32 of all the above; None in manifests that were written without it

    def to_bytes(self) -> bytes:
        content = asdict(self)
        if self.checksum is None:
            del content["checksum"]
        return json.dumps(content, indent=1, sort_keys=True).encode()

    def own_checksum(self) -> int:
        """What ``checksum`` has to be."""
        return crc32(replace(self, checksum=None).to_bytes())

    @property
    def sides(self) -> List[str]:
        return str(self.fields["sides"]).split(",")

    @property
    def epsilon(self) -> float:
        return float(self.fields["epsilon"])


def read_manifest(directory: str, name: str, crc: Optional[int] = None) -> Manifest:
    """The manifest of generation folder *name*; raises ``ValueError`` if it is damaged or not the one of *crc*."""
    path = os.path.join(directory, name, MANIFEST)
    data = read_file(path)
    if crc is not None and crc32(data) != crc:
        raise ValueError(f"{path} is damaged or was replaced: its checksum is not the expected one")
    try:
        manifest = Manifest(**json.loads(data))
        if manifest.checksum not in (None, manifest.own_checksum()):
            raise ValueError("its checksum differs")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return manifest


def store_manifest(directory: str, manifest: Manifest) -> None:
    """Write *manifest* into its generation folder, which is made if need be."""
    folder = os.path.join(directory, manifest.name)
    os.makedirs(folder, exist_ok=True)
    files.write_durably(os.path.join(folder, MANIFEST), manifest.to_bytes())


def read_current(directory: str) -> Optional[Dict[str, Any]]:
    """``{"name": …, "manifest_crc32": …}`` of the current generation, or ``None`` before the first commit."""
    path = os.path.join(directory, CURRENT)
    if not os.path.exists(path):
        return None
    try:
        content = json.loads(read_file(path))
        body = {key: content[key] for key in ("generation", "name", "manifest_crc32")}
        if content["crc32"] != crc32(json.dumps(body, sort_keys=True).encode()):
            raise ValueError("checksum differs")
        return body
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write_current(directory: str, manifest: Manifest) -> None:
    """Point ``CURRENT`` at *manifest*."""
    body = {"generation": manifest.generation, "name": manifest.name, "manifest_crc32": crc32(manifest.to_bytes())}
    content = {**body, "crc32": crc32(json.dumps(body, sort_keys=True).encode())}
    files.write_durably(os.path.join(directory, CURRENT), json.dumps(content).encode())


def read_file(path: str) -> bytes:
    """All of a small file."""
    return files.read_file(path)
