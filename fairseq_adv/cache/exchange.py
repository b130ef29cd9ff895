"""Giving every place the shards that it lacks, over the network: in chunks, checked, durable on arrival."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple

from fairseq_adv.cache.files import crc32, files
from fairseq_adv.cache.placement import Places

CHUNK_BYTES = 4 << 20  # no message is larger; a rank holds one
WINDOW_BYTES = 256 << 20  # sent before the ranks ask each other whether it went well

Entry = Mapping[str, Any]  # of a shard: name, size, crc32
Plan = List[Tuple[Entry, int, List[int]]]  # a shard, the keeper that sends it, the keepers that write it


def exchange_shards(places: Places, folder: str, entries: Sequence[Entry], nobody: str = "") -> int:
    """Every rank: give generation *folder* of each place the shards of *entries* that it lacks; the bytes sent.

    A shard is taken from the first place that holds it, arrives under the same name, and gets that name only when its
    checksum is right and it is on the disk. Raises ``CacheError``, on all ranks, if a disk fails, and ``ValueError``
    that ends with *nobody* if no place holds a shard. Does nothing if all ranks are in one place.
    """
    if not places.several or not entries:
        return 0
    path = os.path.join(places.directory, folder)
    held = places.on_keepers(lambda: [_holds(path, entry) for entry in entries], "looking for shards of the cache")
    plan = list(_plan(places, folder, entries, held, nobody))
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for window in _windows(plan):
        places.on_keepers(partial(_send_all, places, path, window, buffer), "exchanging shards of the cache")
    return sum(int(entry["size"]) for entry, _, _ in plan)


def _holds(path: str, entry: Entry) -> bool:
    try:
        return os.stat(os.path.join(path, entry["name"])).st_size == entry["size"]
    except FileNotFoundError:
        return False


def _plan(
    places: Places, folder: str, entries: Sequence[Entry], held: Sequence[Sequence[bool]], nobody: str
) -> Iterator[Tuple[Entry, int, List[int]]]:
    for number, entry in enumerate(entries):
        having = [keeper for keeper, holds in zip(places.keepers, held) if holds[number]]
        if not having:
            raise ValueError(f"no node holds shard {entry['name']} of {folder} whole{nobody}")
        if len(having) < len(places.keepers):
            yield entry, having[0], [keeper for keeper in places.keepers if keeper not in having]


def _windows(plan: Plan) -> Iterator[Plan]:
    window: Plan = []
    for item in plan:
        window.append(item)
        if sum(int(entry["size"]) for entry, _, _ in window) >= WINDOW_BYTES:
            yield window
            window = []
    if window:
        yield window


def _send_all(places: Places, path: str, window: Plan, buffer: memoryview) -> None:
    """A keeper's part: whatever fails is raised at the end, so that the others never wait for a message."""
    failures: List[Exception] = []
    for entry, source, receivers in window:
        end = _End(os.path.join(path, entry["name"]), entry)
        if places.rank == source:
            end = _Sender(end.path, entry)
        elif places.rank in receivers:
            end = _Receiver(end.path, entry)
        for offset in range(0, int(entry["size"]), len(buffer)):
            part = buffer[: min(len(buffer), int(entry["size"]) - offset)]
            end.attempt(end.before, part, offset)
            places.between_keepers.broadcast_bytes(part, source)
            end.attempt(end.after, part)
        end.attempt(end.finish)
        end.close()
        failures += [end.failure] if end.failure is not None else []
    if failures:
        raise failures[0]


class _End:
    """A keeper at one end of a shard's way; this one has the shard already and lets it pass."""

    def __init__(self, path: str, entry: Entry) -> None:
        self.path, self.entry = path, entry
        self.fd: Optional[int] = None
        self.crc = 0
        self.failure: Optional[Exception] = None

    def attempt(self, action: Callable[..., None], *args: Any) -> None:
        """``action(*args)``, unless something failed before."""
        if self.failure is None:
            try:
                action(*args)
            except Exception as error:
                self.failure = error

    def before(self, part: memoryview, offset: int) -> None:
        """Before a chunk is sent."""

    def after(self, part: memoryview) -> None:
        """After a chunk was sent."""

    def finish(self) -> None:
        """After the last chunk."""

    def close(self) -> None:
        """Whatever happened."""
        if self.fd is not None:
            os.close(self.fd)


class _Sender(_End):
    def before(self, part: memoryview, offset: int) -> None:
        if self.fd is None:
            self.fd = files.open_to_read(self.path)
        files.read_into(self.fd, part, offset, self.path)
        self.crc = crc32(part, self.crc)

    def finish(self) -> None:
        if self.crc != self.entry["crc32"]:
            raise ValueError(
                f"shard {self.path} is damaged (its checksum differs) and other nodes need it: delete it if one of "
                "them has it whole, and start again"
            )


class _Receiver(_End):
    def __init__(self, path: str, entry: Entry) -> None:
        super().__init__(path, entry)
        self.temporary = f"{path}.tmp-{uuid.uuid4().hex[:8]}"

    def after(self, part: memoryview) -> None:
        if self.fd is None:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.fd = files.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        files.write_all(self.fd, part)
        self.crc = crc32(part, self.crc)

    def finish(self) -> None:
        if self.crc != self.entry["crc32"]:
            raise ValueError(f"shard {self.path} arrived damaged: its checksum differs from what its writer recorded")
        assert self.fd is not None
        files.fsync(self.fd)
        files.rename(self.temporary, self.path)
        files.sync_directory(os.path.dirname(self.path))

    def close(self) -> None:
        super().close()
        with suppress(OSError):
            os.unlink(self.temporary)
