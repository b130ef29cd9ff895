"""Files and folders that are whole, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairseq_adv.whole_files import whole_file, whole_folder, write_bytes, write_text


def names(folder: Path) -> list:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_when_it_is_written(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new/a", b"before")
    write_text(tmp_path / "new/a", "ü\n")
    assert (tmp_path / "new/a").read_bytes() == "ü\n".encode() and names(tmp_path / "new") == ["a"]
    with pytest.raises(KeyError), whole_file(tmp_path / "new/a") as partial:
        partial.write_text("half")
        assert (tmp_path / "new/a").read_text(encoding="utf-8") == "ü\n"
        raise KeyError
    assert (tmp_path / "new/a").read_text(encoding="utf-8") == "ü\n" and names(tmp_path / "new") == ["a"]


def test_a_folder_has_its_name_when_all_of_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/left").touch()
    with pytest.raises(KeyError), whole_folder(tmp_path / "out") as partial:
        assert names(partial) == []
        (partial / "a").touch()
        raise KeyError
    assert names(tmp_path) == []
    with whole_folder(tmp_path / "out") as partial:
        (partial / "a").touch()
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["a"]
