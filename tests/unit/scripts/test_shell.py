"""The shell scripts: clean by shellcheck where it is installed, and clear about wrong options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import List

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
OWN = [f"scripts/{name}.sh" for name in ("quickstart", "train_small", "evaluate_run", "large_batch_study", "soak")]
OWN += ["fairseq_adv/experiments/train_small.sh", "fairseq_adv/experiments/one_at_a_time.sh"]
LARGE_BATCH = "examples/translation/large_batch"
PRESETS = sorted(f"{LARGE_BATCH}/{path.name}" for path in (SCRIPTS.parent / LARGE_BATCH).glob("*.sh"))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", [*OWN, *PRESETS])
def test_shellcheck_finds_nothing(name: str) -> None:
    done = subprocess.run(["shellcheck", "-x", name], cwd=SCRIPTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [*OWN, *PRESETS])
def test_syntax(name: str) -> None:
    assert subprocess.run(["bash", "-n", name], cwd=SCRIPTS.parent, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pair", "german"], "--pair must look like en-de, got german"),
        (["--minutes", "0"], "--minutes must be a positive number, got 0"),
        (["--test", "many"], "--test must be a positive number, got many"),
        (["--select", "loss"], "--select must be bleu or nll, got loss"),
        (["--epochs", "0"], "--epochs must be a positive number, got 0"),
        (["--methods", "plain arch"], "--methods must be a comma list"),
        (["--seed"], "--seed needs a value"),
        (["--fast"], "unknown option --fast"),
    ],
)
def test_quickstart_refuses_wrong_options_before_doing_anything(
    tmp_path: Path, arguments: List[str], message: str
) -> None:
    command = ["bash", str(SCRIPTS / "quickstart.sh"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())


def test_quickstarts_help_is_its_header(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPTS / "quickstart.sh"), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "--keep-going" in done.stdout and "set -euo" not in done.stdout


def test_training_refuses_a_folder_of_other_settings(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.en-de.en.idx").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/settings").write_text("plain 60 1 \n")
    command = ["bash", str(SCRIPTS / "train_small.sh"), str(tmp_path / "data"), str(tmp_path / "run"), "arch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "was begun with other settings (plain 60 1 )" in done.stderr


def test_scoring_finds_its_data_among_many_files(tmp_path: Path) -> None:
    """A folder whose list is longer than a pipe holds: whoever reads only the first line must not end the list."""
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/checkpoint_best.pt").touch()
    for number in range(600):
        (tmp_path / f"test.en-de.{number:0200d}.idx").touch()
    command = ["bash", str(SCRIPTS / "evaluate_run.sh"), str(tmp_path), str(tmp_path / "run"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and f"no references {tmp_path}/test.de" in done.stderr
