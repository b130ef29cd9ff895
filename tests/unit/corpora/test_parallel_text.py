"""Sentences out of WIT3's, WMT's and plain files, and files that do not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import List

import pytest

from fairseq_adv.cli.main import main

TAGS = """<url>http://www.ted.com/talks/x</url>
<keywords>a, b</keywords>
<speaker>Somebody</speaker>
<talkid>1</talkid>
<title>Somebody: On light</title>
<description>TED Talk: light &amp; shade</description>
 Thank you.  So much\u2028for light.\x0b
 <em>Not</em> metadata: 5 &lt; 6

<reviewer href="x">R</reviewer>
<translator href="x">T</translator>
"""
XML = """<?xml version="1.0" encoding="UTF-8"?>
<mteval><srcset setid="iwslt2014-dev2010" srclang="english">
<doc docid="69" genre="lectures">
<url>u</url><title>left out here</title>
<seg id="1"> It’s light. </seg>
<seg id="2"> Two
lines &amp; one sentence </seg>
<seg id="3"></seg>
</doc></srcset></mteval>
"""


def run(folder: Path, *sets: str, more: tuple = ()) -> int:
    words = [str(folder), "--languages", "de", "en", "--output", str(folder / "plain"), *more]
    return main(["corpus", "text", *words, *(word for item in sets for word in ("--set", item))])


def lines(path: Path) -> List[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def write(folder: Path, name: str, text: str, other: str = "") -> None:
    (folder / name.format(lang="de")).write_text(text, encoding="utf-8")
    (folder / name.format(lang="en")).write_text(other or text, encoding="utf-8")


def test_talks_lose_their_metadata_but_title_and_description(tmp_path: Path) -> None:
    write(tmp_path, "train.tags.de-en.{lang}", TAGS)
    assert run(tmp_path, "train=train.tags.de-en.{lang}") == 0
    expected = ["Somebody: On light", "TED Talk: light & shade", "Thank you. So much for light."]
    assert lines(tmp_path / "plain/train.de") == [*expected, "<em>Not</em> metadata: 5 < 6", ""]


def test_segments_of_sets_one_after_the_other(tmp_path: Path) -> None:
    write(tmp_path, "dev.{lang}.xml", XML)
    write(tmp_path, "test-ref.{lang}.sgm", '<refset><seg id="1">a &quot;b&quot;</seg>\n<SEG ID="2">c</SEG></refset>')
    sets = ("test=dev.{lang}.xml", "test=test-???.{lang}.sgm")
    assert run(tmp_path, *sets) == 0
    assert lines(tmp_path / "plain/test.en") == ["It’s light.", "Two lines & one sentence", "", 'a "b"', "c"]
    (tmp_path / "plain").rename(tmp_path / "first")
    assert run(tmp_path, *sets, more=("--plain-apostrophes",)) == 0
    assert lines(tmp_path / "plain/test.en")[0] == "It's light."


def test_tokens_with_escapes(tmp_path: Path) -> None:
    write(tmp_path, "tst2012.{lang}", "it &apos;s &amp; that\n")
    assert run(tmp_path, "valid=tst2012.{lang}") == 0
    assert lines(tmp_path / "plain/valid.en") == ["it 's & that"]


def test_sides_of_different_length_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path, "a.{lang}", "eins\nzwei\n", "one\n")
    assert run(tmp_path, "train=a.{lang}") == 2
    assert "a.de is longer, with 2 lines" in capsys.readouterr().err
    assert not (tmp_path / "plain").exists()


def test_a_missing_side(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.de").write_text("eins\n")
    assert run(tmp_path, "train=a.{lang}") == 2
    assert f"the side en is missing: there is no {tmp_path / 'a.en'}" in capsys.readouterr().err
    assert not (tmp_path / "plain").exists()


def test_an_empty_file_and_an_ambiguous_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path, "dev.{lang}.xml", "<mteval></mteval>")
    assert run(tmp_path, "test=dev.{lang}.xml") == 2
    assert "holds no sentence" in capsys.readouterr().err
    write(tmp_path, "a1.{lang}", "x\n")
    write(tmp_path, "a2.{lang}", "x\n")
    assert run(tmp_path, "test=a?.{lang}") == 2
    assert "is not one file but 2: a1.de, a2.de" in capsys.readouterr().err


def test_a_set_needs_a_name_and_a_place_for_the_language(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for wrong in ("train", "train=a.de", "=a.{lang}"):
        assert run(tmp_path, wrong) == 2
        assert "--set must look like NAME=PATH" in capsys.readouterr().err
