"""Fetch the files of a corpus: resumed where it was interrupted, recorded by size and checksum, checked ever after.

Several addresses for one name are tried in turn. A mirror is a folder, or an address that ends before the name,
with files of the same names; then nothing else is asked.

A file that is there under its own name is complete. While it comes it is called NAME.partial, and an interrupted
download goes on from there (HTTP Range; begun anew when the server says that the file has changed meanwhile).
``checksums.json`` in the folder records size and SHA-256 of what came first. A file that differs from its record on
a later run is an error: it is never replaced silently.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO, Dict, List, Optional, Sequence

from tqdm import tqdm

from fairseq_adv.whole_files import write_text

RECORD = "checksums.json"
CHUNK = 1 << 18  # bytes
TRIES = 4  # of one address; each goes on where the last one stopped
TIMEOUT = 60  # seconds without a byte


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def read_record(folder: Path) -> Dict[str, Dict[str, object]]:
    """NAME -> size in bytes, SHA-256 and where it came from."""
    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_record(folder: Path, record: Dict[str, Dict[str, object]]) -> None:
    write_text(folder / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")


def check(path: Path, expected: Dict[str, object]) -> None:
    """Raise ``ValueError`` if *path* is not what was recorded when it was first fetched."""
    size = path.stat().st_size
    if size != expected["size"]:
        raise ValueError(
            f"{path} has {size} bytes, but had {expected['size']} when it was fetched: delete it to fetch it again"
        )
    if sha256(path) != expected["sha256"]:
        raise ValueError(f"{path} has another SHA-256 than when it was fetched: delete it to fetch it again")


def request_from(url: str, partial: Path, validator: Path) -> urllib.request.Request:
    """The request for what *partial* still lacks; for the whole file if there is nothing to be sure of."""
    request = urllib.request.Request(url, headers={"User-Agent": "fairseq-adv recipes", "Accept-Encoding": "identity"})
    told = json.loads(validator.read_text()) if validator.is_file() else {}
    if partial.is_file() and partial.stat().st_size and told.get("url") == url and told.get("validator"):
        request.add_header("Range", f"bytes={partial.stat().st_size}-")
        request.add_header("If-Range", told["validator"])
    return request


def receive(response: BinaryIO, file: BinaryIO, total: Optional[int], name: str) -> None:
    """Append *response* to *file*, whose whole length will be *total* bytes (None: unknown)."""
    with tqdm(total=total, initial=file.tell(), unit="B", unit_scale=True, desc=name, disable=None) as bar:
        for chunk in iter(lambda: response.read(CHUNK), b""):
            file.write(chunk)
            bar.update(len(chunk))


def download_once(url: str, partial: Path) -> None:
    """Bring *partial* to its end, or raise ``OSError`` and leave what came for the next try."""
    validator = partial.with_name(partial.name + ".json")
    with urllib.request.urlopen(request_from(url, partial, validator), timeout=TIMEOUT) as response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if tag and tag.startswith("W/"):
            tag = None  # a weak validator does not promise equal bytes
        validator.write_text(json.dumps({"url": url, "validator": tag}))
        begun = partial.stat().st_size if resumed else 0
        length = response.headers.get("Content-Length")
        total = begun + int(length) if length else None
        with partial.open("ab" if resumed else "wb") as file:
            receive(response, file, total, partial.stem)
    got = partial.stat().st_size
    if total is not None and got != total:
        raise ConnectionError(f"the connection ended after {got} of {total} bytes")
    validator.unlink()


def download(url: str, partial: Path, pause: float = 1.0) -> None:
    """Download *url* to *partial*, going on after broken connections; ``OSError`` if that does not succeed."""
    for attempt in range(TRIES):
        try:
            return download_once(url, partial)
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                partial.unlink()
            elif error.code < 500 or attempt + 1 == TRIES:
                raise
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == TRIES:
                raise ConnectionError(str(error) or type(error).__name__) from error
        time.sleep(pause * 2**attempt)
    raise ConnectionError(f"no complete answer in {TRIES} tries")


def bring(address: str, partial: Path) -> None:
    """*address* is a URL or a file; raises ``OSError`` if it cannot be had whole."""
    if "://" in address:
        download(address, partial)
    else:
        shutil.copyfile(address, partial)


def addresses(name: str, urls: Sequence[str], mirror: Optional[str]) -> List[str]:
    if mirror is None:
        return list(urls)
    return [f"{mirror.rstrip('/')}/{name}" if "://" in mirror else str(Path(mirror) / name)]


def fetch(name: str, urls: Sequence[str], folder: Path, mirror: Optional[str] = None) -> Path:
    """*folder*/*name*, whole and as recorded. Raises ``ValueError`` that says what could not be had, and why."""
    path, record = folder / name, read_record(folder)
    if path.is_file() and name in record:
        check(path, record[name])
        return path
    partial, failures = folder / f"{name}.partial", []
    for address in addresses(name, urls, mirror):
        try:
            bring(address, partial)
        except OSError as error:
            failures.append(f"  {address}: {error}")
            continue
        record[name] = {"size": partial.stat().st_size, "sha256": sha256(partial), "source": address}
        os.replace(partial, path)
        write_record(folder, record)
        return path
    raise ValueError(
        f"{name} could not be fetched:\n" + "\n".join(failures) + "\nrun the same command again to go on where it "
        "stopped, or get the file elsewhere and name its folder or address: --mirror DIR_OR_URL"
    )


def named_addresses(files: Sequence[str]) -> Dict[str, List[str]]:
    """NAME -> its addresses, out of words ``NAME=URL``. Raises ``ValueError`` unless NAME is a plain file name."""
    found: Dict[str, List[str]] = {}
    for file in files:
        name, separator, url = file.partition("=")
        if not separator or not name or Path(name).name != name:
            raise ValueError(f"expected NAME=URL with a plain file name, got {file!r}")
        found.setdefault(name, []).append(url)
    return found
