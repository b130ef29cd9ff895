"""The table of trainings on sentences: which numbers stand where, and what may not be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.experiments.sentence_results import read_run

pytest.importorskip("sklearn")

TARGETS = [0, 1] * 20


def write_run(folder: Path, method: str, seed: int, wrong: int, cpu: str = "10.0 2.0\n") -> Path:
    """A scored run that has the first *wrong* rows of the test set wrong."""
    run = folder / f"{method}-seed{seed}"
    run.mkdir()
    predicted = [1 - t if row < wrong else t for row, t in enumerate(TARGETS)]
    for name, values in (("predictions", predicted), ("targets", TARGETS)):
        (run / f"{name}.test").write_text("".join(f"{value}\n" for value in values))
    accuracy = 1 - wrong / len(TARGETS)
    subsets = {"valid": {"accuracy": 0.5, "rows": 7}, "test": {"accuracy": accuracy, "rows": len(TARGETS)}}
    (run / "score.json").write_text(json.dumps({"set": "movie", "metrics": ["accuracy"], "subsets": subsets}))
    (run / "run.json").write_text(json.dumps({"method": method, "seed": seed}))
    (run / "cpu-seconds").write_text(cpu)
    return run


def table(folder: Path, runs: List[Path], *more: str) -> int:
    return main(["sentences", "table", *map(str, runs), "--output", str(folder / "results"), *more])


def test_the_table_has_means_differences_and_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path, "plain", 1, 10), write_run(tmp_path, "plain", 2, 12)]
    # 12 + 24 seconds: interrupted once; against plain's 12
    runs += [write_run(tmp_path, "smart", 1, 4, "10.0 2.0\n20.0 4.0\n"), write_run(tmp_path, "smart", 2, 8, "30 6")]
    untrained = tmp_path / "baselines.json"
    scores = {"test": {"accuracy": 0.5}, "valid": {"accuracy": 0.25}}
    untrained.write_text(json.dumps({"baselines": {"majority": scores}}))
    assert table(tmp_path, runs, "--untrained", str(untrained)) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert rows[2][:5] == ["majority", "test", "–", "50.00", "25.00"]
    assert rows[3] == ["plain", "test", "2", "72.50 ± 3.54", "50.00 ± 0.00", "", "", "", ""]
    assert rows[4][:5] == ["smart", "test", "2", "85.00 ± 7.07", "50.00 ± 0.00"]
    assert rows[4][5].startswith("+12.50 [+") and rows[4][7:] == ["0.126", "3.00 ×"]  # t = 5 with one degree
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["rows"][1]["against"]["seeds"] == [1, 2] and "85.00" in (tmp_path / "results.md").read_text()


def test_only_seeds_of_both_are_compared_and_only_on_the_same_rows(tmp_path: Path, capsys) -> None:
    runs = [write_run(tmp_path, "plain", 1, 10), write_run(tmp_path, "smart", 1, 4), write_run(tmp_path, "smart", 2, 0)]
    assert table(tmp_path, [*runs, write_run(tmp_path, "vat", 3, 0)]) == 0
    found = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert found[1]["against"]["seeds"] == [1] and found[1]["against"]["value"] == pytest.approx(0.15)
    assert found[2]["against"] == {}
    (runs[1] / "targets.test").write_text("1\n" * 40)
    assert table(tmp_path, runs[:2]) == 2 and "was scored on other rows than" in capsys.readouterr().err
    assert table(tmp_path, [runs[0], runs[0]]) == 2 and "plain with seed 1 was given twice" in capsys.readouterr().err


def test_an_unscored_run_says_how_to_score_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fairseq-adv sentences evaluate"):
        read_run(tmp_path)
