"""Extract named files from an archive of unknown origin, all of them or none.

Reads tar (plain, gz, bz2, xz) and zip. Only regular files that match one of the patterns are written. Refused with
the member's name: a path that leaves the folder, and a link or device where a file was asked for. An archive that is
damaged or cut off is deleted from its place with its record in ``checksums.json``, so that it is fetched again.
Everything is written to a folder beside OUTPUT, which becomes OUTPUT at the end: a folder that is there is complete.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Iterator, List, NamedTuple, Optional, Sequence

from tqdm import tqdm

from fairseq_adv.corpora.fetching import read_record, write_record
from fairseq_adv.whole_files import whole_folder

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
CHUNK = 1 << 18  # bytes


class Member(NamedTuple):
    """One entry of an archive, as it comes by."""

    name: str
    is_file: bool
    is_folder: bool
    content: Optional[IO[bytes]]  # of a regular file


def members(archive: Path, wanted: Sequence[str]) -> Iterator[Member]:
    """The entries of *archive* in order; the content can be read until the next one is taken."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
                needed = is_file and matches(clean(info.filename), wanted)
                content = zipped.open(info) if needed else None
                yield Member(info.filename, is_file, info.is_dir(), content)
        return
    with open_decompressed(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isreg() else None
                yield Member(entry.name, entry.isreg(), entry.isdir(), content)
        while stream.read(CHUNK):  # to the end: only there a cut or a wrong checksum shows
            pass


def open_decompressed(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), open)
    return opener(archive, "rb")  # type: ignore[operator]


def clean(name: str) -> str:
    """The path with ``./`` taken off."""
    return str(PurePosixPath(name))


def matches(name: str, patterns: Sequence[str]) -> List[str]:
    return [pattern for pattern in patterns if fnmatchcase(name, pattern)]


def check_path(name: str) -> None:
    """Raise ``ValueError`` if *name* could point outside the folder that it is extracted to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or re.match("[A-Za-z]:", name):
        raise ValueError(f"the member {name!r} leaves the folder: this archive is not to be trusted")


def unpack(archive: Path, output: Path, patterns: Sequence[str]) -> List[str]:
    """:func:`extract`, with ``ValueError`` that names *archive* also where it is damaged or cut off."""
    try:
        return extract(archive, output, patterns)
    except DAMAGE as error:
        forget(archive)
        raise ValueError(
            f"{archive} is damaged or cut off ({error}): the same command fetches it again; if it stays so, the copy "
            "at its source is damaged"
        ) from error
    except ValueError as error:
        raise ValueError(f"{archive}: {error}") from error


def extract(archive: Path, output: Path, patterns: Sequence[str]) -> List[str]:
    """Write the members of *archive* that match *patterns* below *output*, and return their names.

    Raises ``ValueError`` for what the module's first lines say, and for a pattern that nothing matches.
    """
    with whole_folder(output) as partial:
        written = _write_matching(archive, partial, patterns)
        shutil.rmtree(output, ignore_errors=True)
    return written


def _write_matching(archive: Path, folder: Path, patterns: Sequence[str]) -> List[str]:
    unmatched, written, seen = list(patterns), [], []
    for member in tqdm(members(archive, patterns), unit=" members", desc=archive.name, disable=None):
        name = clean(member.name)
        check_path(member.name)
        found = matches(name, patterns)
        if not member.is_folder:
            seen.append(name)
        if not found or member.is_folder:
            continue
        if not member.is_file or member.content is None:
            raise ValueError(f"the member {name!r} is a link or a device, where a file is needed")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(member.content, file)
        written.append(name)
        unmatched = [pattern for pattern in unmatched if pattern not in found]
    if unmatched:
        few = ", ".join(seen[:12]) + (f" and {len(seen) - 12} more" if len(seen) > 12 else "")
        raise ValueError(f"has no member {', '.join(unmatched)}; it has {few or 'no files at all'}")
    return written


def forget(archive: Path) -> None:
    """Delete a damaged archive and its record, so that the next run fetches it again."""
    record = read_record(archive.parent)
    if record.pop(archive.name, None) is not None:
        write_record(archive.parent, record)
        archive.unlink()
