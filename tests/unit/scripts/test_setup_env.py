"""``scripts/setup_env.sh`` installs what is asked for once, and again when setup.py changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

ROOT = Path(__file__).resolve().parents[3]

# An interpreter that writes down what pip is asked to install instead of installing it.
FAKE_PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then
  shift 2
  echo "$@" >>"{log}"
else
  exec "{python}" "$@"
fi
"""


class Checkout:
    """A copy of what the script reads, and an active environment whose pip only logs."""

    def __init__(self, directory: Path) -> None:
        self.root, self.venv, self.log = directory / "checkout", directory / "venv", directory / "pip.log"
        (self.root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/setup_env.sh", self.root / "scripts")
        shutil.copy(ROOT / "setup.py", self.root)
        (self.venv / "bin").mkdir(parents=True)
        python = self.venv / "bin/python"
        python.write_text(FAKE_PYTHON.format(log=self.log, python=sys.executable))
        python.chmod(0o755)

    def setup(self, extras: str) -> List[str]:
        """Run ``setup_env EXTRAS``; what pip was asked to install, one item for each call."""
        self.log.write_text("")
        script = f". scripts/setup_env.sh && setup_env {extras} && command -v python"
        env = {**os.environ, "VIRTUAL_ENV": str(self.venv)}
        done = subprocess.run(
            ["bash", "-ec", script], cwd=self.root, env=env, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.strip() == str(self.venv / "bin/python"), "the environment is not active"
        return [line.split(" ", 3)[-1] for line in self.log.read_text().splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_installs_once_for_each_set_of_extras(checkout: Checkout) -> None:
    assert checkout.setup("knn,bert") == [f"--editable {checkout.root}[knn,bert]"]
    assert checkout.setup("knn,bert") == []
    assert checkout.setup("knn") == [f"--editable {checkout.root}[knn]"]
    assert checkout.setup("knn,bert") == []


def test_installs_again_when_setup_py_changes(checkout: Checkout) -> None:
    checkout.setup("knn")
    checkout.setup("bert")
    with (checkout.root / "setup.py").open("a") as file:
        file.write("# another requirement\n")
    assert checkout.setup("knn") == [f"--editable {checkout.root}[knn]"]
    assert checkout.setup("bert") == [f"--editable {checkout.root}[bert]"]


def test_installs_again_for_another_checkout(checkout: Checkout, tmp_path: Path) -> None:
    """An editable install points to one checkout: a second one that shares the environment takes it over."""
    checkout.setup("knn")
    moved = tmp_path / "moved"
    checkout.root = checkout.root.rename(moved)
    assert checkout.setup("knn") == [f"--editable {moved}[knn]"]


def test_a_failed_install_is_tried_again(checkout: Checkout) -> None:
    python = checkout.venv / "bin/python"
    works = python.read_text()
    python.write_text(works.replace("shift 2", "exit 1"))
    with pytest.raises(subprocess.CalledProcessError):
        checkout.setup("knn")
    python.write_text(works)
    assert checkout.setup("knn") == [f"--editable {checkout.root}[knn]"]
