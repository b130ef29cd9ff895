"""The corpus recipes as a user runs them, from archives with the published layout to a score, without network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence

import pytest

from tests.integration import corpus_archives
from tests.integration.running import ROOT

SMALL = "--vocabulary 300 --workers 1 --epochs 2 --batch-tokens 400 --beam 2 --embeddings random"
TINY = """--max-tokens 400 --warmup-updates 10 --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16
    --decoder-embed-dim 16 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2
    --decoder-attention-heads 2 --num-workers 0"""
WITH_BLEU = (*TINY.split(), "--eval-bleu-args", '{"beam": 1, "max_len_a": 0, "max_len_b": 20}')  # in validation


class Recipe(NamedTuple):
    work: Path
    name: str

    def run(self, *words: str, more: Sequence[str] = WITH_BLEU) -> subprocess.CompletedProcess:
        """``bash NAME.sh WORDS`` on its mirror, with a tiny model."""
        script = ["bash", str(ROOT / f"examples/translation/{self.name}.sh"), "--work-dir", str(self.work)]
        command = [*script, "--mirror", str(self.work / "mirror"), *SMALL.split(), *words, "--", *more]
        environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=self.work, env=environment, capture_output=True, text=True, timeout=500, check=False
        )

    def check(self, *words: str, more: Sequence[str] = WITH_BLEU) -> str:
        done = self.run(*words, more=more)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    @property
    def base(self) -> Path:
        return self.work / self.name

    @property
    def data(self) -> Path:
        return self.base / "sentencepiece-300"

    def scored(self, run: str) -> Dict[str, object]:
        return json.loads((self.data / "runs" / run / "score.json").read_text())


def lines(path: Path) -> List[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def with_mirror(work: Path, name: str, build: Callable[[Path], None]) -> Recipe:
    build(work / "mirror")
    return Recipe(work, name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = with_mirror(tmp_path_factory.mktemp("work"), "iwslt14-de-en", corpus_archives.iwslt14)
    output = recipe.check("all")
    (recipe.work / "stdout").write_text(output)
    return recipe


def test_all_ends_with_a_table_of_both_methods(finished: Recipe) -> None:
    output = (finished.work / "stdout").read_text()
    assert output.count("\nBLEU = ") == 2 and "case:lc" in output
    table = output[output.index("method ") :].splitlines()
    assert [row.split()[0] for row in table[:3]] == ["method", "plain", "arch"]
    assert (finished.data / "report-de-en/index.html").is_file()
    log = (finished.data / "runs/de-en/arch-seed1/train.log").read_text()
    assert '"train_adv_refresh": "1"' in log and '"train_batch_tokens_target": "400"' in log


def test_the_split_is_the_published_one(finished: Recipe) -> None:
    train = corpus_archives.sentence_pairs()[100:400]
    text, german = finished.base / "text", []
    for start in range(0, 300, 100):  # each talk begins with its title and its description
        german += [train[start][1], f"TED Talk: {train[start][1]}", *(pair[1] for pair in train[start : start + 100])]
    valid = [german[number] for number in range(22, len(german), 23)]
    assert lines(text / "raw/valid.de") == valid
    assert len(lines(text / "train.en")) == len(german) - len(valid)
    test = [pair[0] for pair in corpus_archives.sentence_pairs()[:60]]  # five sets of twelve, in their order
    assert lines(text / "raw/test.en") == test
    assert all(line == line.lower() for line in lines(text / "train.de"))


def test_everything_that_went_in_is_scored(finished: Recipe) -> None:
    score, run = finished.scored("de-en/plain-seed1"), finished.data / "runs/de-en/plain-seed1"
    assert score["sentences"] == 60 == len(lines(run / "test.hyp"))
    assert lines(run / "test.ref") == lines(finished.base / "text/raw/test.en")
    assert lines(run / "test.tok.ref") == lines(finished.base / "text/test.en")
    assert score["lenpen"] == 1.5 and "tok:13a" in str(score["bleu_signature"])


def test_again_nothing_is_repeated_and_a_changed_archive_is_noticed(finished: Recipe) -> None:
    def times() -> Dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished.base.rglob("*") if path.is_file()}

    before = times()
    finished.check("prepare")
    assert times() == before and len(before) > 40
    archive = finished.base / "download/de-en.tgz"
    content = archive.read_bytes()
    try:
        archive.write_bytes(content[:-1] + b"x")
        done = finished.run("prepare")
        assert done.returncode != 0 and "de-en.tgz has another SHA-256" in done.stderr
    finally:
        archive.write_bytes(content)


def test_a_damaged_archive_is_nothing_until_a_whole_one_comes(tmp_path: Path) -> None:
    recipe = with_mirror(tmp_path, "iwslt14-de-en", corpus_archives.iwslt14)
    archive = tmp_path / "mirror/de-en.tgz"
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    done = recipe.run("prepare")
    assert done.returncode == 2 and "de-en.tgz is damaged or cut off" in done.stderr
    assert not (recipe.base / "orig").exists() and not (recipe.base / "download/de-en.tgz").exists()
    archive.unlink()
    done = recipe.run("prepare")
    assert done.returncode == 2 and "de-en.tgz could not be fetched" in done.stderr and "--mirror" in done.stderr


@pytest.mark.slow
def test_the_other_direction_uses_the_same_data(finished: Recipe) -> None:
    binarised = {path: path.stat().st_mtime_ns for path in (finished.data / "bin").iterdir()}
    assert finished.check("--reverse", "all").count("\nBLEU = ") == 2
    assert {path: path.stat().st_mtime_ns for path in (finished.data / "bin").iterdir()} == binarised
    run = finished.data / "runs/en-de/arch-seed1"
    assert lines(run / "test.ref") == lines(finished.base / "text/raw/test.de")
    assert finished.check("--reverse", "train", "arch", "2") == ""
    assert finished.check("--reverse", "--lenpen", "tuned", "evaluate", "arch", "2").count("\nBLEU = ") == 1
    assert "valid_bleu" in finished.scored("en-de/arch-seed2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "build", "sentences", "more"),
    [
        ("iwslt15-en-vi", corpus_archives.iwslt15, 30, WITH_BLEU),
        ("iwslt16-en-fr", corpus_archives.iwslt16, 12, WITH_BLEU),
        ("wmt16-en-de", corpus_archives.wmt16, 30, TINY.split()),
    ],
)
def test_every_recipe_comes_to_a_score(
    tmp_path: Path, name: str, build: Callable[[Path], None], sentences: int, more: Sequence[str]
) -> None:
    recipe = with_mirror(tmp_path, name, build)
    average = ("--average", "2") if name.startswith("wmt") else ()
    assert recipe.check(*average, "all", more=more).count("\nBLEU = ") == 2
    direction = name.split("-", 1)[1]
    for run in ("plain-seed1", "arch-seed1"):
        score = recipe.scored(f"{direction}/{run}")
        assert score["sentences"] == sentences and "case:mixed" in str(score["bleu_signature"])
    assert (recipe.data / f"runs/{direction}/plain-seed1/checkpoints/average.pt").exists() == bool(average)


@pytest.mark.slow
def test_subword_nmt(finished: Recipe) -> None:
    pytest.importorskip("subword_nmt")
    output = finished.check("--bpe", "subword-nmt", "--methods", "plain", "all")
    assert output.count("\nBLEU = ") == 1
    run = finished.base / "subword-nmt-300/runs/de-en/plain-seed1"
    assert lines(run / "test.tok.ref") == lines(finished.base / "text/test.en")
