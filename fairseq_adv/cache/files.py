"""Every call of the cache to the file system, in one place: durable writes, exact reads, bounded retries.

Tests replace the methods of ``Files`` to inject faults; a shared file system may answer ENOENT or ESTALE
for a while after another node wrote a file, so readers retry with a bound.
"""

from __future__ import annotations

import errno
import logging
import os
import time
import uuid
import zlib
from contextlib import suppress
from typing import Callable, TypeVar, Union

T = TypeVar("T")
RETRY_ERRORS = (errno.ENOENT, errno.ESTALE)
CHUNK = 16 << 20

logger = logging.getLogger(__name__)


class Files:
    """The system calls that the cache makes; one instance, :data:`files`, is used throughout."""

    retry_seconds = 120.0

    def write(self, fd: int, data: Union[bytes, memoryview]) -> int:
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags, mode)

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def write_durably(self, path: str, data: bytes) -> None:
        """Write *data* to *path* so that after a crash there is the whole file or none: tmp, fsync, rename, fsync."""
        temporary = self.write_temporary(path, data)
        try:
            self.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self.sync_directory(os.path.dirname(path))

    def write_temporary(self, path: str, data: bytes) -> str:
        """Write *data*, durably, to a new file beside *path*; its name. Nothing stays behind on an error."""
        temporary = f"{path}.tmp-{uuid.uuid4().hex[:8]}"
        fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            self.write_all(fd, data)
            self.fsync(fd)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        return temporary

    def write_all(self, fd: int, data: Union[bytes, memoryview]) -> None:
        """Write *data*, however many calls it takes."""
        view = memoryview(data)
        while view:
            view = view[self.write(fd, view[:CHUNK]) :]

    def sync_directory(self, path: str) -> None:
        """Make renames inside *path* survive a crash."""
        fd = self.open(path, os.O_RDONLY)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)

    def read_into(self, fd: int, buffer: memoryview, offset: int, what: str) -> None:
        """Fill *buffer* from *offset* on; raises ``ValueError`` naming *what* if the file is shorter.

        ESTALE is for the caller to mend: it stays with a descriptor for ever, only opening the file anew helps.
        """
        done, size = 0, len(buffer)
        while done < size:
            count = self.preadv(fd, buffer[done:], offset + done)
            if count == 0:
                raise ValueError(f"{what} is truncated: {size} bytes expected at offset {offset}, {done} there")
            done += count

    def read_exactly(self, fd: int, size: int, offset: int, what: str) -> bytearray:
        """*size* bytes at *offset*; raises ``ValueError`` naming *what* if the file is shorter."""
        data = bytearray(size)
        self.read_into(fd, memoryview(data), offset, what)
        return data

    def open_to_read(self, path: str) -> int:
        """A descriptor of *path*, which another node may have written a moment ago."""
        return self.retrying(lambda: self.open(path, os.O_RDONLY), path)

    def read_file(self, path: str) -> bytes:
        """All of a small file, which another node may have written a moment ago."""

        def read() -> bytes:
            fd = self.open(path, os.O_RDONLY)
            try:
                return bytes(self.read_exactly(fd, os.fstat(fd).st_size, 0, path))
            finally:
                os.close(fd)

        return self.retrying(read, path)

    def retrying(self, action: Callable[[], T], what: str) -> T:
        """*action*'s result; ENOENT and ESTALE are retried for ``retry_seconds``, then raised with *what*."""
        deadline, pause = time.monotonic() + self.retry_seconds, 0.05
        told = False
        while True:
            try:
                return action()
            except OSError as error:
                if error.errno not in RETRY_ERRORS:
                    raise
                reason = os.strerror(error.errno or 0)
                if time.monotonic() >= deadline:
                    raise OSError(
                        error.errno,
                        f"{what}: {reason}, for {self.retry_seconds:g} s; is the cache directory mounted on this node?",
                    ) from error
                if not told and pause > 1:
                    logger.warning("waiting up to %g s for %s (%s)", self.retry_seconds, what, reason)
                    told = True
                time.sleep(min(pause, self.retry_seconds))
                pause = min(2 * pause, 2.0)


files = Files()


def crc32(data: Union[bytes, bytearray, memoryview], start: int = 0) -> int:
    """zlib's CRC-32 as an unsigned integer, continuing from that of earlier bytes, *start*."""
    return zlib.crc32(data, start) & 0xFFFFFFFF
