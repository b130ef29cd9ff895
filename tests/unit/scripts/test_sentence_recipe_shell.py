"""The shell code of the recipes for sentences: clean by shellcheck where it is installed, clear about wrong options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import List

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "examples/sentence_prediction"
RECIPES = sorted(path for path in FOLDER.glob("*.sh") if path.name != "recipe.sh")


def test_the_sets_have_a_recipe_each() -> None:
    assert [path.stem for path in RECIPES] == ["anli", "glue", "movie", "stsb"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    names = [str(path.relative_to(ROOT)) for path in FOLDER.glob("*.sh")]
    done = subprocess.run(["shellcheck", "-x", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "train needs a METHOD"),
        (["train", "plain", "one"], "SEED must be a number, got one"),
        (["cook"], "unknown step cook"),
        (["baselines", "twice"], "baselines takes nothing after it, got twice"),
        (["prepare", "--layers"], "--layers needs a value"),
        (["prepare", "--layers", "0"], "--layers must be a positive number, got 0"),
        (["prepare", "--train-rows", "1k"], "--train-rows must be a positive number, got 1k"),
        (["prepare", "--set", "sst2"], "--set must be one of movie movie-rating, got sst2"),
        (["prepare", "--encoder", "bert-base"], "--encoder must be hf:NAME_OR_PATH, got bert-base"),
        (["all", "--lr", "high"], "--lr must be a number such as 1e-4, got high"),
        (["all", "--methods", "Plain"], "--methods must be a comma list such as plain,arch, got Plain"),
        (["all", "--fast"], "unknown option --fast"),
        ([], "bash examples/sentence_prediction/movie.sh"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(tmp_path: Path, arguments: List[str], message: str) -> None:
    command = ["bash", str(FOLDER / "movie.sh"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_help_tells_of_the_set_and_of_the_steps(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(path), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and f"bash examples/sentence_prediction/{path.name} " in done.stdout
    assert path.read_text(encoding="utf-8").splitlines()[1][2:] in done.stdout
    assert "evaluate [METHOD] [SEED]" in done.stdout and "set -euo" not in done.stdout
