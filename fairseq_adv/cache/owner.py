"""``OWNER``: one job at a time writes a cache directory."""

from __future__ import annotations

import json
import os
import socket
import uuid
from typing import Any, Dict, Optional

from fairseq_adv.cache.files import files
from fairseq_adv.cache.manifest import read_file

OWNER = "OWNER"


class OwnerLock:
    """Ownership of *directory* by the run *run_id*; acquired on construction, checked by :meth:`check`.

    A dead process on this host, or an earlier process of the same run on another host, loses it silently. A live one
    keeps it: ``ValueError``, unless *takeover*, after which the other run fails at its next commit.
    """

    def __init__(self, directory: str, run_id: str, takeover: bool) -> None:
        self.path = os.path.join(directory, OWNER)
        self.token = uuid.uuid4().hex
        body = {"run_id": run_id, "host": socket.gethostname(), "pid": os.getpid(), "token": self.token}
        data = json.dumps(body).encode()
        try:
            fd = files.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            holder = self._holder()
            if holder is not None and not takeover and self._is_alive(holder, run_id):
                raise ValueError(
                    f"{directory} is in use by run {holder.get('run_id')} (process {holder.get('pid')} on "
                    f"{holder.get('host')}): choose another --cache-dir, or stop that run, or take the directory "
                    "from it with --cache-takeover"
                ) from None
            files.write_durably(self.path, data)
        else:
            os.close(fd)
            files.write_durably(self.path, data)

    def _holder(self) -> Optional[Dict[str, Any]]:
        try:
            return json.loads(read_file(self.path))
        except (ValueError, OSError):
            return None  # torn: its writer died while it wrote

    @staticmethod
    def _is_alive(holder: Dict[str, Any], run_id: str) -> bool:
        if holder.get("host") != socket.gethostname():
            return holder.get("run_id") != run_id
        if holder.get("pid") == os.getpid():
            return False
        try:
            os.kill(int(holder["pid"]), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def check(self) -> None:
        """Raise ``OSError`` if another run took the directory."""
        holder = self._holder()
        if holder is None or holder.get("token") != self.token:
            who = "nobody" if holder is None else f"run {holder.get('run_id')} on {holder.get('host')}"
            raise OSError(
                f"this run lost its cache directory ({self.path} now belongs to {who}); nothing was committed"
            )

    def release(self) -> None:
        """Give the directory back, if it is still ours."""
        holder = self._holder()
        if holder is not None and holder.get("token") == self.token:
            os.unlink(self.path)
