"""What is there under its own name is complete: files and folders are written as NAME.partial first."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Iterator


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside *path* to write to; it becomes *path* if nothing was raised. Makes the folder."""
    partial = _partial(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """An empty folder beside *output* to write into; it becomes *output* if nothing was raised."""
    partial = _partial(output)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(output: Path) -> None:
    """Raise ``ValueError`` for a folder to be made that is there, before any work."""
    if output.exists():
        raise ValueError(f"--output {output} is there already: delete it, or name another folder")


def write_text(path: Path, text: str) -> None:
    """Write *text* as UTF-8 to *path*, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write *content* to *path*, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")
