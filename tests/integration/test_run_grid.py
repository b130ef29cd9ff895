"""``run_grid.py`` with real trainings: killed with -9 and started again, it repeats nothing that was finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

import pytest

from tests.integration.running import ROOT

VARIANTS = ["plain", "r3f", "rdrop-1=rdrop --rdrop-alpha 1"]


def start(corpus: Path, *options: str) -> subprocess.Popen:
    words = [sys.executable, str(ROOT / "scripts/run_grid.py"), str(corpus), "--variants", *VARIANTS, "--epochs", "1"]
    words += options
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def finished(runs: Path) -> Dict[Path, int]:
    """When the files of the finished trainings were written; a checkpoint changes if anything is trained again."""
    kept: List[Path] = [run / name for run in runs.glob("*") if (run / "done").is_file() for name in ("train.log",)]
    kept += [path for log in kept for path in (log.parent / "checkpoints").iterdir()]
    return {path: path.stat().st_mtime_ns for path in kept}


def kill(process: subprocess.Popen) -> None:
    """As the kernel does when memory runs out: the script dies, its training may live on."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def corpus(tiny_corpus: Path, tmp_path: Path) -> Path:
    (tmp_path / "bin").symlink_to(tiny_corpus)
    (tmp_path / "raw").symlink_to(tiny_corpus.parent / "text")
    return tmp_path


def test_killed_at_several_moments_nothing_finished_is_repeated(corpus: Path) -> None:
    runs = corpus / "runs-epochs1"
    process = start(corpus)
    # the first kill falls into the first training, the second right after it, the third into the second training
    for moment in ("plain-seed1/train.log", "plain-seed1/done", "r3f-seed1/train.log"):
        end = time.monotonic() + 120
        while not (runs / moment).is_file():
            assert process.poll() is None and time.monotonic() < end, process.communicate()
            time.sleep(0.02)
        kill(process)
        before = finished(runs)
        process = start(corpus)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    after = finished(runs)
    assert before and {path: after[path] for path in before} == before
    assert {path.name for path in runs.glob("*-seed1") if (path / "score.json").is_file()} == {
        "plain-seed1", "r3f-seed1", "rdrop-1-seed1"
    }  # fmt: skip
    for run in runs.glob("*-seed1"):  # one training each: the run that lost its script was waited for, not doubled
        assert (run / "train.log").read_text().count("| train | {") == 1
    assert (runs / "report/index.html").is_file() and "| rdrop-1 | 1 |" in output
    everything = {path: path.stat().st_mtime_ns for path in runs.glob("*-seed1/*.*")}
    again = start(corpus)
    assert again.communicate(timeout=300)[0] == output and again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*-seed1/*.*")} == everything


@pytest.mark.slow
def test_the_same_grid_by_jobs_of_a_cluster(corpus: Path) -> None:
    pytest.importorskip("submitit")
    output, errors = start(corpus, "--slurm", "cluster=local", "timeout_min=20").communicate(timeout=500)
    runs = corpus / "runs-epochs1"
    assert "| rdrop-1 | 1 |" in output and "3/3 runs" in errors, errors
    assert len(list(runs.glob("*-seed1/score.json"))) == len(list(runs.glob("slurm/*_result.pkl"))) == 3
    assert start(corpus).communicate(timeout=300)[0] == output  # and here nothing is left to do
