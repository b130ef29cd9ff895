"""GLUE and ANLI from files in the published layout: each sentence, its partner and its label come from their column."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.corpora.sentences.anli import anli
from fairseq_adv.corpora.sentences.glue import TASKS, fetch_glue
from fairseq_adv.corpora.sentences.labelled import Example, read_subset
from tests.unit.corpora.sentences.published import write_anli, write_zip

# archive, folder in it, first line ("" where the file has none), a row of words F (first), S (second) and L (label)
NLI_REST = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
LAYOUTS: Dict[str, List[str]] = {
    "cola": ["CoLA.zip", "CoLA", "", "gj04 L _ F"],
    "sst2": ["SST-2.zip", "SST-2", "sentence label", "F L"],
    "qqp": ["QQP-clean.zip", "QQP", "id qid1 qid2 question1 question2 is_duplicate", "0 1 2 F S L"],
    "stsb": [
        "STS-B.zip", "STS-B", "index genre filename year old_index source1 source2 sentence1 sentence2 score",
        "0 main MSRvid 2012test 0001 none none F S L",
    ],
    "mnli": [
        "MNLI.zip", "MNLI", f"{NLI_REST} sentence1 sentence2 label1 gold_label", "0 1 1n fiction b b p p F S neutral L",
    ],
    "qnli": ["QNLIv2.zip", "QNLI", "index question sentence label", "0 F S L"],
    "rte": ["RTE.zip", "RTE", "index sentence1 sentence2 label", "0 F S L"],
}  # fmt: skip


def written(layout: List[str], rows: List[Example]) -> str:
    _, _, header, pattern = layout
    lines = [header.split()] if header else []
    for example in rows:
        values = {"F": example.first, "S": example.second or "", "L": example.label}
        lines.append([values.get(word, word) for word in pattern.split()])
    return "".join("\t".join(line) + "\n" for line in lines)


def examples(name: str, text: str) -> List[Example]:
    labels = TASKS[name].classes or ("0.000", "4.750")
    pair = len(TASKS[name].columns) == 3
    return [Example(f'{text} "{i} is', f"{text} {i}, so" if pair else None, label) for i, label in enumerate(labels)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_task_reads_its_columns(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    files = {"train": "train.tsv", **dict(TASKS[name].dev)}
    expected = {subset: examples(name, subset) for subset in files}
    texts = {f"{layout[1]}/{file}": written(layout, expected[subset]) for subset, file in files.items()}
    texts[f"__MACOSX/{layout[1]}/train.tsv"] = "not this"
    write_zip(tmp_path / "mirror" / layout[0], texts)
    found = fetch_glue(name, tmp_path / "download", str(tmp_path / "mirror"))
    assert found.subsets == expected
    assert "test" not in found.scored and set(found.scored) == set(files) - {"train"}


def test_mrpc_is_cut_by_its_list_of_ids(tmp_path: Path) -> None:
    rows = [("1", "10", "11", "One a.", "One b."), ("0", "20", "21", "Two a.", "Two b."), ("1", "11", "10", "X.", "Y.")]
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    text = "\ufeff" + "".join(line + "\r\n" for line in [header, *map("\t".join, rows)])
    (tmp_path / "msr_paraphrase_train.txt").write_bytes(text.encode())
    (tmp_path / "mrpc_dev_ids.tsv").write_bytes(b"10\t11\n30\t31\n")
    found = fetch_glue("mrpc", tmp_path / "download", str(tmp_path)).subsets
    assert found["valid"] == [Example("One a.", "One b.", "1")]
    assert found["train"] == [Example("Two a.", "Two b.", "0"), Example("X.", "Y.", "1")]


def test_rows_that_lack_columns_are_left_out_but_not_many(tmp_path: Path) -> None:
    layout, rows = LAYOUTS["qqp"], examples("qqp", "train") * 100
    good = written(layout, rows)
    write_zip(tmp_path / layout[0], {"QQP/train.tsv": good + "7\t8\t9\tcut off\n", "QQP/dev.tsv": good})
    assert fetch_glue("qqp", tmp_path / "a", str(tmp_path)).subsets["train"] == rows
    write_zip(tmp_path / layout[0], {"QQP/train.tsv": good + "7\tcut off\n" * 5, "QQP/dev.tsv": good})
    with pytest.raises(ValueError, match=r"train\.tsv: only 200 of 205 rows have the columns"):
        fetch_glue("qqp", tmp_path / "b", str(tmp_path))


def test_other_columns_and_archives_are_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "RTE.zip", {"RTE/train.tsv": "index\tsentence1\tlabel\n0\ta\t1\n"})
    with pytest.raises(ValueError, match=r"train.tsv has no column 'sentence2'; its first line is \['index'"):
        fetch_glue("rte", tmp_path / "a", str(tmp_path))
    write_zip(tmp_path / "CoLA.zip", {"CoLA/dev.tsv": "gj04\t1\t\tGood .\n"})
    with pytest.raises(ValueError, match=r"CoLA\.zip has no train\.tsv"):
        fetch_glue("cola", tmp_path / "b", str(tmp_path))


def test_anli_trains_on_all_rounds_and_is_scored_on_each(tmp_path: Path) -> None:
    found = anli(write_anli(tmp_path / "anli_v1.0.zip"))
    rounds = [f"{name}_r{number}" for name in ("dev", "test") for number in (1, 2, 3)]
    assert set(found.subsets) == {"train", "valid", "test", *rounds}
    assert found.subsets["valid"] == [e for number in (1, 2, 3) for e in found.subsets[f"dev_r{number}"]]
    assert found.subsets["test_r2"] == [
        Example("Context 2 of test.", "It is so.", "entailment"),
        Example("Context 2 of test.", "It is not so.", "contradiction"),
    ]
    assert len(found.subsets["train"]) == 6 and set(found.scored) == {"valid", "test", *rounds}
    write_zip(tmp_path / "cut.zip", {"anli_v1.0/R1/train.jsonl": ""})
    with pytest.raises(ValueError, match=r"cut\.zip is not a complete anli_v1\.0\.zip"):
        anli(tmp_path / "cut.zip")


def test_fetch_takes_them_from_a_mirror(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_anli(tmp_path / "mirror/anli_v1.0.zip")
    command = ["sentences", "fetch", "anli", "--mirror", str(tmp_path / "mirror"), "--output", str(tmp_path / "raw")]
    assert main(command) == 0
    assert "anli: train 6, valid 6, test 6, dev_r1 2" in capsys.readouterr().out
    assert read_subset(tmp_path / "raw", "dev_r3")[0].first == "Context 3 of dev."
    assert (tmp_path / "download/checksums.json").is_file()
