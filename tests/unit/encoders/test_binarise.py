"""Binarised sets as fairseq's own task reads them: every row and label against what was fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

import pytest
from fairseq.tasks.sentence_prediction import SentencePredictionConfig, SentencePredictionTask

from fairseq_adv.cli.main import main
from fairseq_adv.corpora.sentences.labelled import Example, SentenceSet, write_set
from fairseq_adv.encoders.binarise import cut_longest, task_options
from fairseq_adv.encoders.convert import convert_bert
from tests.unit.encoders import tiny_bert

CLASSES = ("quiet", "loud")
SINGLE = [
    Example("the dogs bark .", None, "loud"),
    Example("a quietly dog", None, "quiet"),
    Example("bark", None, "loud"),
]
PAIRS = [Example("the dogs", "a dog", "4.5"), Example("bark .", "the the quiet", "0"), Example("a", "run", "2.25")]


def prepared(
    folder: Path, examples: Sequence[Example], classes: Sequence[str], kind: str = "bert", unit: float = 1.0
) -> Path:
    source = tiny_bert.write_model(folder / "original", model_type=kind)
    convert_bert(f"hf:{source}", folder / "encoder")
    metrics = ("accuracy", "f1") if classes else ("pearson", "spearman")
    subsets = {name: list(examples) for name in ("train", "valid", "test")}
    made = SentenceSet("tiny", classes, metrics, ("test",), subsets, unit=unit)
    write_set(made, folder / "raw")
    command = ["sentences", "binarise", folder / "raw", "--encoder", folder / "encoder", "--output", folder / "bin"]
    assert main([str(word) for word in command]) == 0
    return folder / "bin"


def rows_of(folder: Path, data: Path) -> List[Dict[str, Any]]:
    """Rows of the validation set by fairseq's task with the options that were written beside data and encoder."""
    words = [*(folder / "encoder/train-options").read_text().split(), *(data / "train-options").read_text().split()]
    options = {name: word for name, word in zip(words, words[1:]) if name.startswith("--")}
    cfg = SentencePredictionConfig(data=str(data), num_classes=int(options["--num-classes"]), no_shuffle=True, seed=1)
    cfg.regression_target, cfg.init_token = "--regression-target" in words, int(options["--init-token"])
    cfg.separator_token = int(options["--separator-token"]) if "--separator-token" in options else None
    cfg.max_positions = int(options["--max-positions"])
    task = SentencePredictionTask.setup_task(cfg)
    dataset = task.load_dataset("valid")
    symbols = task.source_dictionary.symbols
    return [
        {"tokens": [symbols[index] for index in row["net_input.src_tokens"]], "target": float(row["target"][0])}
        for row in (dataset[index] for index in range(len(dataset)))
    ]


def test_rows_and_classes_are_those_of_the_set(tmp_path: Path) -> None:
    data = prepared(tmp_path, SINGLE, CLASSES)
    rows = rows_of(tmp_path, data)
    assert [row["tokens"] for row in rows] == [
        ["<s>", "the", "dog", "##s", "bark", ".", "</s>"],
        ["<s>", "a", "quiet", "##ly", "dog", "</s>"],
        ["<s>", "bark", "</s>"],
    ]
    # by their place in the set's list, not by frequency: loud is twice as frequent
    assert [row["target"] for row in rows] == [1, 0, 1]


@pytest.mark.parametrize(("kind", "between"), [("bert", ["</s>"]), ("roberta", ["</s>", "</s>"])])
def test_pairs_are_one_row_and_numbers_stay_numbers(tmp_path: Path, kind: str, between: List[str]) -> None:
    rows = rows_of(tmp_path, prepared(tmp_path, PAIRS, (), kind))
    assert rows[0]["tokens"] == ["<s>", "the", "dog", "##s", *between, "a", "dog", "</s>"]
    assert [row["target"] for row in rows] == [4.5, 0, 2.25]


@pytest.mark.parametrize(("kind", "positions"), [("bert", tiny_bert.POSITIONS), ("roberta", tiny_bert.POSITIONS - 2)])
def test_long_rows_are_cut_to_the_positions_and_counted(tmp_path: Path, kind: str, positions: int, capsys) -> None:
    long = Example("bark " * 20, "run run run", "1")
    rows = rows_of(tmp_path, prepared(tmp_path, [long, *PAIRS], (), kind))
    assert len(rows[0]["tokens"]) == positions and rows[0]["tokens"].count("run") == 3
    assert "train 4 (1 cut)" in capsys.readouterr().out
    assert json.loads((tmp_path / "bin/set.json").read_text())["cut"] == {"train": 1, "valid": 1, "test": 1}


def test_numbers_are_learned_in_the_unit_of_the_set(tmp_path: Path) -> None:
    data = prepared(tmp_path, PAIRS, (), unit=5.0)
    assert [row["target"] for row in rows_of(tmp_path, data)] == pytest.approx([0.9, 0, 0.45])


def test_the_longest_sentence_is_cut_first() -> None:
    row = [list("abcdefg"), list("uvwx")]
    assert cut_longest(row, 6) and row == [list("abc"), list("uvw")]
    assert not cut_longest(row, 6)


def test_options_tell_the_task_and_the_best_checkpoint() -> None:
    best = ["--best-checkpoint-metric", "accuracy", "--maximize-best-checkpoint-metric"]
    assert task_options(CLASSES, ("accuracy", "f1")) == ["--num-classes", "2", "--report-acc-and-f1", *best]
    words = task_options((), ("pearson", "spearman"))
    assert words[:4] == ["--num-classes", "1", "--regression-target", "--report-pearson-and-spearman"]
    assert "pearson_and_spearman" in words


def test_what_is_missing_or_there_already_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin").mkdir()
    command = ["sentences", "binarise", str(tmp_path / "raw"), "--encoder", str(tmp_path / "encoder"), "--output"]
    assert main([*command, str(tmp_path / "bin")]) == 2 and "is there already" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "new")]) == 2
    assert "fairseq-adv sentences fetch NAME --output" in capsys.readouterr().err
