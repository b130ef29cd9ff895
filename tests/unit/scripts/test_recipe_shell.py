"""The recipes' shell code: clean by shellcheck where it is installed, and clear about wrong options."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import List

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
FOLDER = SCRIPTS.parent / "examples/translation"
SHARED = [FOLDER / "debian.sh", FOLDER / "recipe.sh", FOLDER / "prepare.sh", FOLDER.parent / "steps.sh"]
RECIPES = sorted(path for path in FOLDER.glob("*.sh") if path not in SHARED)
PUBLISHED = [path for path in RECIPES if not path.name.startswith("debian-")]


def test_there_are_four_of_papers_and_three_of_debian() -> None:
    assert [path.stem for path in PUBLISHED] == ["iwslt14-de-en", "iwslt15-en-vi", "iwslt16-en-fr", "wmt16-en-de"]
    assert [path.stem for path in RECIPES[:3]] == ["debian-de-en", "debian-fr-en", "debian-it-en"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    names = [str(path.relative_to(SCRIPTS.parent)) for path in (*RECIPES, *SHARED)]
    done = subprocess.run(["shellcheck", "-x", *names], cwd=SCRIPTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_every_value_has_a_source_and_the_addresses_a_warning(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"address(es)? below could not be tried", text)
    body = text[text.index("corpus=") : text.index("train_options=")].splitlines()[1:]
    assert len(body) >= 6
    for line in body:
        assert "#" in line and re.search(r"ours|fairseq|ARCH|Vaswani|seq2seq|IWSLT|published", line.split("#", 1)[1]), (
            line
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "train needs a METHOD"),
        (["train", "plain", "one"], "SEED must be a number, got one"),
        (["cook"], "unknown step cook"),
        (["prepare", "twice"], "prepare takes nothing after it, got twice"),
        (["prepare", "--mirror"], "--mirror needs a value"),
        (["prepare", "--mirror", "nowhere"], "--mirror nowhere is neither a folder nor an address"),
        (["prepare", "--bpe", "unigram"], "--bpe must be sentencepiece or subword-nmt, got unigram"),
        (["prepare", "--vocabulary", "0"], "--vocabulary must be a positive number, got 0"),
        (["all", "--lenpen", "best"], "--lenpen must be a number or tuned, got best"),
        (["all", "--fast"], "unknown option --fast"),
        ([], "bash examples/translation/iwslt14-de-en.sh"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(tmp_path: Path, arguments: List[str], message: str) -> None:
    command = ["bash", str(PUBLISHED[0]), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_help_tells_of_the_corpus_and_of_the_steps(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(path), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "plain training against ARCH" in done.stdout
    header = path.read_text(encoding="utf-8").split("\nset -euo")[0].splitlines()
    assert header[-1][2:] in done.stdout.splitlines() and f"bash examples/translation/{path.name} " in done.stdout
    assert "evaluate [METHOD] [SEED]" in done.stdout and "--mirror DIR_OR_URL" in done.stdout
    assert "set -euo" not in done.stdout
