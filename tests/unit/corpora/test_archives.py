"""Archives that are whole, cut off, or not to be trusted."""

from __future__ import annotations

import io
import json
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Optional

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.corpora import archives

WANTED = {"de-en/train.de": b"eins\n" * 3000, "de-en/train.en": b"one\n" * 3000}


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def write_tar(path: Path, more: Optional[tarfile.TarInfo] = None, first: bool = False) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        if more is not None and first:
            tar.addfile(more)
        for name, content in {"de-en/README": b"read me", **WANTED}.items():
            entry = member(f"./{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if more is not None and not first:
            tar.addfile(more)
    return path


def extract(archive: Path, *patterns: str) -> Path:
    output = archive.parent / "out"
    archives.extract(archive, output, patterns or ("de-en/train.*",))
    return output


def contents(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if not path.is_dir()}


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    assert contents(extract(write_tar(tmp_path / "a.tgz"))) == WANTED
    assert not (tmp_path / "out.partial").exists()


def test_zip_files_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in WANTED.items():
            archive.writestr(name, content)
    assert contents(extract(tmp_path / "a.zip")) == WANTED


@pytest.mark.parametrize("name", ["../train.de", "/tmp/train.de", "de-en/../../train.de", "C:/train.de", "a\\..\\b"])
@pytest.mark.parametrize("first", [True, False])
def test_a_path_that_leaves_the_folder(tmp_path: Path, name: str, first: bool) -> None:
    archive = write_tar(tmp_path / "a.tgz", member(name), first)
    with pytest.raises(ValueError, match="leaves the folder"):
        extract(archive)
    assert not (tmp_path / "out").exists() and not (tmp_path / "train.de").exists()


def test_a_zip_member_that_leaves_the_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../train.de", b"")
    with pytest.raises(ValueError, match="leaves the folder"):
        extract(tmp_path / "a.zip", "*")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    bad = member("de-en/train.fr", kind, "/etc/passwd")
    with pytest.raises(ValueError, match=r"'de-en/train\.fr' is a link or a device"):
        extract(write_tar(tmp_path / "a.tgz", bad))
    assert not (tmp_path / "out").exists()
    other = member("de-en/link", kind, "/etc/passwd")
    assert contents(extract(write_tar(tmp_path / "b.tgz", other))) == WANTED


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("de-en/train.de")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link or a device"):
        extract(tmp_path / "a.zip")


def test_a_missing_side_is_named_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no member de-en/train\.fr; it has de-en/README, de-en/train\.de"):
        extract(write_tar(tmp_path / "a.tgz"), "de-en/train.de", "de-en/train.fr")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", [1, 4, 8, 9, 40, 100, 200])
def test_a_cut_archive_leaves_nothing_and_is_fetched_again(
    tmp_path: Path, missing: int, capsys: pytest.CaptureFixture
) -> None:
    archive = write_tar(tmp_path / "a.tgz")
    assert archive.stat().st_size > 200
    archive.write_bytes(archive.read_bytes()[:-missing])
    (tmp_path / "checksums.json").write_text(json.dumps({"a.tgz": {}, "b.tgz": {}}))
    assert main(["corpus", "unpack", str(archive), "de-en/*", "--output", str(tmp_path / "out")]) == 2
    assert "a.tgz is damaged or cut off" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checksums.json"]
    assert list(json.loads((tmp_path / "checksums.json").read_text())) == ["b.tgz"]


def test_an_archive_of_the_user_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(b"no archive at all")
    assert main(["corpus", "unpack", str(tmp_path / "a.tgz"), "*", "--output", str(tmp_path / "out")]) == 2
    assert (tmp_path / "a.tgz").exists() and not (tmp_path / "out").exists()
