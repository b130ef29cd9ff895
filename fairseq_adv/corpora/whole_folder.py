"""A folder that is there is complete: what the scripts that make folders share."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Iterator


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """An empty folder beside *output* to write into; it gets the name *output* if nothing was raised."""
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    os.replace(partial, output)
