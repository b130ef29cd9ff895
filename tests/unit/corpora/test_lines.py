"""One rule for what a line is, in all that reads text."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.corpora import cleaning
from fairseq_adv.corpora.lines import joined, read_lines, read_pairs, require_same_length

# A lone carriage return inside the second line, a Windows ending, a line separator of Unicode, an empty line.
TEXT = "one\ntwo\rmore\nthree\r\nfour\u2028more\n\nsix"
LINES = ["one", "two more", "three", "four\u2028more", "", "six"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def test_lines_are_what_wc_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a", TEXT + "\n")
    assert list(read_lines(path)) == LINES
    counted = subprocess.run(["wc", "-l", str(path)], capture_output=True, text=True, check=True).stdout
    assert int(counted.split()[0]) == len(LINES)


def test_what_is_written_reads_the_same_with_universal_newlines(tmp_path: Path) -> None:
    path = write(tmp_path / "a", joined(TEXT.split("\n")))
    assert [line.rstrip("\n") for line in path.open(encoding="utf-8")] == LINES


def test_pairs_and_which_side_is_longer(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.en", "a\nb\rc\nd\n"), write(tmp_path / "a.de", "A\nB\nD\n")
    assert list(read_pairs(one, other)) == [("a", "A"), ("b c", "B"), ("d", "D")]
    write(other, "A\nB\nD\nE\nF\n")
    with pytest.raises(ValueError, match=r"a\.de is longer, with 5 lines; .*a\.en has 3"):
        list(read_pairs(one, other))
    with pytest.raises(ValueError, match=r"a\.de is longer, with 5 lines; .*a\.en has 3"):
        list(read_pairs(other, one))


def test_the_longest_of_several_is_named_first() -> None:
    require_same_length({"a": 3, "b": 3})
    with pytest.raises(ValueError, match="b is longer, with 7 lines; a has 5, c has 3"):
        require_same_length({"a": 5, "b": 7, "c": 3})


def pairs_of(folder: Path, name: str, languages: List[str]) -> List[List[str]]:
    return [list(read_lines(folder / f"{name}.{language}")) for language in languages]


def test_every_step_of_a_recipe_keeps_lines_together(tmp_path: Path) -> None:
    """A carriage return inside one source line, through all steps, and then as fairseq-preprocess reads."""
    plain, languages = tmp_path / "plain", ["en", "de"]
    for name in ("train", "valid", "test"):
        write(plain / f"{name}.en", "the one cat\nthe two\rblue cats\nthe three red cats\n")
        write(plain / f"{name}.de", "die eine Katze\ndie zwei blauen Katzen\ndie drei roten Katzen\n")
    common = ["--languages", *languages, "--output"]
    assert main(["corpus", "tokenize", str(plain), *common, str(tmp_path / "tokens"), "--workers", "1"]) == 0
    limits = ["--plain", str(plain), "--min-length", "1", "--ratio", "3"]
    assert main(["corpus", "clean", str(tmp_path / "tokens"), *common, str(tmp_path / "text"), *limits]) == 0
    assert pairs_of(tmp_path / "text/raw", "test", languages)[0][1] == "the two blue cats"
    assert main(["corpus", "subwords", str(plain), *common, str(tmp_path / "bpe"), "--vocabulary", "40"]) == 0
    for folder in ("tokens", "text", "bpe"):
        for name in ("train", "valid", "test"):
            sides = [(tmp_path / folder / f"{name}.{language}").open(encoding="utf-8") for language in languages]
            assert [len(list(side)) for side in sides] == [3, 3], (folder, name)


def test_a_plain_corpus_with_carriage_returns_is_parallel(tmp_path: Path) -> None:
    write(tmp_path / "orig/a.en", "one\rmore\ntwo\n")
    write(tmp_path / "orig/a.de", "eins\nzwei\n")
    arguments = [str(tmp_path / "orig"), "--languages", "en", "de", "--output", str(tmp_path / "out")]
    assert main(["corpus", "text", *arguments, "--set", "train=a.{lang}"]) == 0
    assert pairs_of(tmp_path / "out", "train", ["en", "de"]) == [["one more", "two"], ["eins", "zwei"]]


def test_a_longer_side_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "orig/a.en", "one\ntwo\nthree\n")
    write(tmp_path / "orig/a.de", "eins\nzwei\n")
    arguments = [str(tmp_path / "orig"), "--languages", "en", "de", "--output", str(tmp_path / "out")]
    assert main(["corpus", "text", *arguments, "--set", "train=a.{lang}"]) == 2
    assert "a.en is longer, with 3 lines" in capsys.readouterr().err
    args: Any = SimpleNamespace(folder=tmp_path / "orig", plain=tmp_path / "orig", languages=["en", "de"])
    with pytest.raises(ValueError, match=r"a\.en is longer"):
        list(cleaning.both_forms(args, "a"))
