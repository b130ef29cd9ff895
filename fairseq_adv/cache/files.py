"""Every call of the cache to the file system, in one place: durable writes, exact reads, bounded retries.

Tests replace the functions of ``Files`` to inject faults; a shared file system may answer ENOENT or ESTALE
for a while after another node wrote a file, so readers retry with a bound.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from typing import Callable, TypeVar

T = TypeVar("T")
RETRY_ERRORS = (errno.ENOENT, errno.ESTALE)


class Files:
    """The system calls that the cache makes; one instance, :data:`files`, is used throughout."""

    retry_seconds = 120.0

    def write(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags, mode)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def write_durably(self, path: str, data: bytes) -> None:
        """Write *data* to *path* so that after a crash there is the whole file or none: tmp, fsync, rename, fsync."""
        directory, temporary = os.path.dirname(path), f"{path}.tmp-{os.getpid()}"
        fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            view = memoryview(data)
            while view:
                view = view[self.write(fd, bytes(view[: 1 << 24])) :]
            self.fsync(fd)
        finally:
            os.close(fd)
        self.rename(temporary, path)
        fd = self.open(directory, os.O_RDONLY)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)

    def read_exactly(self, fd: int, size: int, offset: int, what: str) -> bytes:
        """*size* bytes at *offset*; raises ``ValueError`` naming *what* if the file is shorter."""
        parts, done = [], 0
        while done < size:

            def read(left: int = size - done, at: int = offset + done) -> bytes:
                return self.pread(fd, left, at)

            part = self.retrying(read, what)
            if not part:
                raise ValueError(f"{what} is truncated: {size} bytes expected at offset {offset}, {done} there")
            parts.append(part)
            done += len(part)
        return b"".join(parts)

    def retrying(self, action: Callable[[], T], what: str) -> T:
        """*action*'s result; ENOENT and ESTALE are retried for ``retry_seconds``, then raised with *what*."""
        deadline, pause = time.monotonic() + self.retry_seconds, 0.05
        while True:
            try:
                return action()
            except OSError as error:
                if error.errno not in RETRY_ERRORS:
                    raise
                if time.monotonic() >= deadline:
                    raise OSError(
                        error.errno,
                        f"{what}: {os.strerror(error.errno or 0)}, for {self.retry_seconds:g} s; is the "
                        "cache directory mounted on this node?",
                    ) from error
                time.sleep(pause)
                pause = min(2 * pause, 2.0)


files = Files()


def crc32(data: bytes) -> int:
    """zlib's CRC-32 as an unsigned integer."""
    return zlib.crc32(data) & 0xFFFFFFFF
