"""From plain text to subwords: tokenisation, cleaning, splitting, byte-pair encoding."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.corpora import moses
from tests.integration.corpus_archives import sentence_pairs

LANGUAGES = ["--languages", "en", "de"]


def write(folder: Path, **sets: List[tuple]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, pairs in sets.items():
        for column, language in enumerate(("en", "de")):
            text = "".join(f"{pair[column]}\n" for pair in pairs)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return folder


def read(folder: Path) -> Dict[str, List[str]]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8").split("\n")[:-1]
        for path in sorted(folder.rglob("*.??"))
    }


def tokenized(folder: Path, name: str, *more: str) -> Dict[str, List[str]]:
    output = folder.parent / name
    assert main(["corpus", "tokenize", str(folder), *LANGUAGES, "--output", str(output), *more]) == 0
    return read(output)


def test_moses_tokens_without_escapes(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", train=[('He said, "it\'s A & B".', "Das ist z.B. „gut“."), ("", "")])
    tokens = tokenized(plain, "cased")
    assert tokens["train.en"] == ['He said , " it \'s A & B " .', ""]
    assert tokenized(plain, "lower", "--lowercase")["train.en"][0] == 'he said , " it \'s a & b " .'
    assert tokenized(plain, "normal", "--normalize")["train.de"][0].count('"') == 2


def test_detokenisation_gives_the_text_back(tmp_path: Path) -> None:
    pairs = [pair for pair in sentence_pairs()[:50] if "X" not in pair[0]]
    plain = write(tmp_path / "plain", train=pairs)
    tokenized(plain, "tokens")
    assert tokenized(tmp_path / "tokens", "again", "--detokenize") == read(plain)


def test_any_number_of_processes_gives_the_same_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moses, "CHUNK", 7)
    plain = write(tmp_path / "plain", train=sentence_pairs()[:100])
    assert tokenized(plain, "one") == tokenized(plain, "three", "--workers", "3")


def test_a_side_without_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plain = write(tmp_path / "plain", train=[("a", "b")])
    (plain / "train.de").unlink()
    assert main(["corpus", "tokenize", str(plain), *LANGUAGES, "--output", str(tmp_path / "out")]) == 2
    assert "holds no file NAME.de" in capsys.readouterr().err and not (tmp_path / "out").exists()


def cleaned(tmp_path: Path, *more: str, **sets: List[tuple]) -> Dict[str, List[str]]:
    upper = {name: [(one.upper(), other.upper()) for one, other in pairs] for name, pairs in sets.items()}
    words = [str(write(tmp_path / "tok", **sets)), "--plain", str(write(tmp_path / "plain", **upper)), *LANGUAGES]
    assert main(["corpus", "clean", *words, "--output", str(tmp_path / "text"), *more]) == 0
    return read(tmp_path / "text")


def test_pairs_are_dropped_by_length_and_ratio_only_in_training(tmp_path: Path) -> None:
    odd = [("", "b"), ("a a a a", "b b b b"), ("a", "b b")]
    kept = [("a a", "b b b"), ("a a a", "b b")]
    text = cleaned(tmp_path, "--ratio", "1.5", "--max-length", "3", train=[*odd, *kept], valid=odd, test=odd)
    assert text["train.en"] == ["a a", "a a a"] and text["train.de"] == ["b b b", "b b"]
    assert text["valid.en"] == ["", "a a a a", "a"] == text["test.en"]
    assert text["raw/valid.de"] == ["B", "B B B B", "B B"] and "raw/train.de" not in text


def test_every_nth_kept_pair_is_for_validation(tmp_path: Path) -> None:
    train = [(f"a{n}" if n % 5 else "", f"b{n}") for n in range(60)]
    text = cleaned(tmp_path, "--valid-every", "23", train=train, test=train[:3])
    kept = [n for n in range(60) if n % 5]
    assert text["valid.en"] == [f"a{kept[22]}", f"a{kept[45]}"]
    assert text["raw/valid.de"] == [f"B{kept[22]}", f"B{kept[45]}"]
    assert text["train.de"] == [f"b{n}" for n in kept if n not in (kept[22], kept[45])]


def test_sides_and_forms_of_different_length_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    two, one = [("a", "b")] * 2, [("a", "b")]
    words = [*LANGUAGES, "--output", str(tmp_path / "text")]
    tokens, plain = write(tmp_path / "tok", train=two, valid=one, test=one), write(tmp_path / "plain", train=one)
    assert main(["corpus", "clean", str(tokens), "--plain", str(plain), *words]) == 2
    assert "train is longer than" in capsys.readouterr().err
    (tokens / "train.de").write_text("b\n")
    assert main(["corpus", "clean", str(tokens), "--plain", str(tokens), *words]) == 2
    assert "train.en is longer, with 2 lines" in capsys.readouterr().err
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize("kind", ["sentencepiece", "subword-nmt"])
def test_pieces_join_to_the_tokens_that_went_in(tmp_path: Path, kind: str) -> None:
    if kind == "subword-nmt" and importlib.util.find_spec("subword_nmt") is None:
        pytest.skip("subword-nmt is not installed")
    from fairseq.data.data_utils import post_process

    unusual = [("½ … ﬁ e\u0301", "ｆｕｌｌ ① „x“")]  # that a normalisation would change
    pairs = [*sentence_pairs()[:200], *unusual]
    text = write(tmp_path / "text", train=pairs, valid=pairs[:5], test=pairs[-5:])
    words = [str(text), *LANGUAGES, "--kind", kind, "--vocabulary", "150", "--output", str(tmp_path / "bpe")]
    assert main(["corpus", "subwords", *words]) == 0
    pieces = read(tmp_path / "bpe")
    assert max(len(line.split()) for line in pieces["train.en"]) > 8
    remove = kind.replace("-", "_")
    assert {name: [post_process(line, remove).strip() for line in found] for name, found in pieces.items()} == read(
        text
    )


def test_subword_nmt_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "subword_nmt", None)
    monkeypatch.setitem(sys.modules, "subword_nmt.apply_bpe", None)
    text = write(tmp_path / "text", train=[("a", "b")])
    words = [str(text), *LANGUAGES, "--kind", "subword-nmt", "--output", str(tmp_path / "bpe")]
    assert main(["corpus", "subwords", *words]) == 2
    assert "pip install subword-nmt" in capsys.readouterr().err and not (tmp_path / "bpe").exists()
