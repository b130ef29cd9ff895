"""``OWNER``: one job at a time writes a cache directory."""

from __future__ import annotations

import atexit
import json
import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Optional

from fairseq_adv.cache.files import files

OWNER = "OWNER"


class OwnerLock:
    """Ownership of *directory* by the run *run_id*; acquired on construction, checked by :meth:`check`.

    A dead process on this host, or an earlier process of the same run on another host, loses it silently. A live one
    keeps it: ``ValueError``, unless *takeover*, after which the other run fails at its next commit. The directory is
    given back by :meth:`release`, at the latest when the interpreter ends.
    """

    def __init__(self, directory: str, run_id: str, takeover: bool) -> None:
        self.path = os.path.join(directory, OWNER)
        self._pid = os.getpid()
        body = {"run_id": run_id, "host": socket.gethostname(), "pid": self._pid, "started": _start_time(self._pid)}
        self.token = uuid.uuid4().hex
        data = json.dumps({**body, "token": self.token}).encode()
        while not self._claim(data):
            there = _content(self.path)
            holder = _parsed(there)
            if holder is not None and not takeover and is_alive(holder, run_id):
                raise ValueError(
                    f"{directory} is in use by run {holder.get('run_id')} (process {holder.get('pid')} on "
                    f"{holder.get('host')}): choose another --cache-dir, or stop that run, or take the directory "
                    "from it with --cache-takeover"
                )
            self._remove(there)
        atexit.register(self.release)

    def _claim(self, data: bytes) -> bool:
        """Create the file, whole, if there is none."""
        temporary = files.write_temporary(self.path, data)
        try:
            files.link(temporary, self.path)
            return True
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return self._claim_exclusively(data)
        finally:
            with suppress(OSError):
                os.unlink(temporary)

    def _remove(self, content: Optional[bytes]) -> None:
        """Take the file away if it still has this *content*: of two runs that find one dead owner, one succeeds it."""
        aside = f"{self.path}.tmp-{self.token[:8]}"
        try:
            files.rename(self.path, aside)
        except FileNotFoundError:
            return  # another run is replacing it
        try:
            if _content(aside) != content:
                self._give_back(aside)
        finally:
            with suppress(OSError):
                os.unlink(aside)

    def _give_back(self, aside: str) -> None:
        """*aside* turned out to be the file of a run that was quicker."""
        try:
            files.link(aside, self.path)
        except FileExistsError:  # a third run
            pass
        except OSError:  # a file system without hard links
            files.rename(aside, self.path)

    def _claim_exclusively(self, data: bytes) -> bool:
        """Without hard links others may see the file before it is whole, and replace it: look if it is ours still."""
        try:
            fd = files.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        try:
            files.write_all(fd, data)
            files.fsync(fd)
        finally:
            os.close(fd)
        return _content(self.path) == data

    def check(self) -> None:
        """Raise ``OSError`` if another run took the directory."""
        holder = read_holder(os.path.dirname(self.path))
        if holder is None or holder.get("token") != self.token:
            who = "nobody" if holder is None else f"run {holder.get('run_id')} on {holder.get('host')}"
            raise OSError(
                f"this run lost its cache directory ({self.path} now belongs to {who}); nothing was committed"
            )

    def release(self) -> None:
        """Give the directory back, if it is still ours."""
        atexit.unregister(self.release)
        if os.getpid() != self._pid:
            return
        with suppress(OSError):
            holder = read_holder(os.path.dirname(self.path))
            if holder is not None and holder.get("token") == self.token:
                os.unlink(self.path)


def read_holder(directory: str) -> Optional[Dict[str, Any]]:
    """What ``OWNER`` says, or ``None`` if there is none or its writer died while it wrote."""
    return _parsed(_content(os.path.join(directory, OWNER)))


def _content(path: str) -> Optional[bytes]:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _parsed(content: Optional[bytes]) -> Optional[Dict[str, Any]]:
    try:
        holder = json.loads(content or b"")
    except ValueError:
        return None
    return holder if isinstance(holder, dict) else None


def is_alive(holder: Dict[str, Any], run_id: str = "") -> bool:
    """Whether *holder* may still be writing; on another host all but earlier processes of *run_id* count as alive."""
    if holder.get("host") != socket.gethostname():
        return holder.get("run_id") != run_id
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return holder.get("started") in (None, _start_time(pid))  # else another process has its number now


def _start_time(pid: int) -> Optional[str]:
    """When process *pid* started, in ticks since this machine did; ``None`` where the system does not tell."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"
    except (OSError, IndexError):
        return None
