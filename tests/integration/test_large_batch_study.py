"""``scripts/large_batch_study.py`` from training to table, on the tiny corpus: a run that is done is not repeated."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Dict

import pytest

from tests.integration.running import ROOT, Run, run_command

OPTIONS = "--methods lamb:4 --epochs 1 --base-tokens 100 --warmup-updates 4 --lamb-lr 0.01"


def study(work: Path, *options: str) -> Run:
    words = [sys.executable, ROOT / "scripts/large_batch_study.py", "--work-dir", work, *OPTIONS.split(), *options]
    bin_folder = str(Path(sys.executable).parent)
    return run_command(words, env={"PATH": bin_folder + os.pathsep + os.environ["PATH"]})


def times_of_files(run: Path) -> Dict[Path, int]:
    """When each file was written, but for the two that every call writes."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in ("lock", "settings")]
    return {path: path.stat().st_mtime_ns for path in files}


def test_study_trains_scores_and_measures_the_gap(tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").symlink_to(tiny_corpus)
    (tmp_path / "raw").symlink_to(tiny_corpus.parent / "text")
    first = study(tmp_path)
    output = tmp_path / "large-batch-epochs1"
    (row,) = json.loads((output / "study.json").read_text())["runs"]
    assert row["done"] and row["gap"] == row["valid_nll"] - row["train_nll"]
    assert 300 < row["batch_tokens"] < 500 and row["updates"] > 3
    run = output / "lamb-x4-seed1"
    log = (run / "train.log").read_text()
    assert "adv_lamb" in log and "'adam_betas'" not in log
    (rate,) = [json.loads(line.split(" | ")[-1])["train_lr"] for line in log.splitlines() if " | train | " in line]
    assert float(rate) == pytest.approx(0.01 * 4**0.5 / row["updates"] ** 0.5, rel=1e-4)  # one update of warm-up
    files = times_of_files(run)
    assert study(tmp_path).stdout == first.stdout and "| lamb | 1 |" in first.stdout
    assert times_of_files(run) == files
