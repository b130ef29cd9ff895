"""What train_small.sh records of a training besides its log, with a fairseq-train that only burns time."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

import pytest

from fairseq_adv.experiments.commands import TRAIN_SMALL, cpu_seconds

BURN = """#!/bin/sh
case "$*" in *--fail*) exit 3 ;; esac
i=0; while [ $i -lt 40000 ]; do i=$((i + 1)); done
"""


def train(folder: Path, *options: str) -> int:
    words = ["bash", str(TRAIN_SMALL), str(folder / "data"), str(folder / "run"), "plain", "--", *options]
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(words, env={**os.environ, "PATH": path}, check=False).returncode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (
        ("bin/fairseq-train", BURN),
        ("bin/fairseq-adv", "#!/bin/sh\n"),
        ("data/train.a-b.a.idx", ""),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    python = tmp_path / "bin/python"  # no GPU, and no import of torch to wait for
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    return tmp_path


def test_cpu_time_is_added_up_over_attempts_and_a_failure_stays_one(folder: Path) -> None:
    assert math.isnan(cpu_seconds(folder / "run"))
    assert train(folder) == 0 and (folder / "run/done").is_file()
    first = cpu_seconds(folder / "run")
    assert 0.005 < first < 30
    (folder / "run/done").unlink()
    assert train(folder) == 0
    assert len((folder / "run/cpu-seconds").read_text().split()) == 4 and cpu_seconds(folder / "run") > first


def test_a_training_that_fails_is_told(folder: Path) -> None:
    assert train(folder, "--fail") == 3 and not (folder / "run/done").exists()
    assert len((folder / "run/cpu-seconds").read_text().split()) == 2
