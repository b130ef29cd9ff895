"""SIGKILL on the processes of a real training: ``scripts/soak.sh`` in short, and its own judgement."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.outcome import check_logs, compare_losses, first_difference
from tests.integration.running import Run, run_command

ENV = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def soak(work_dir: Path, *options: Any) -> Run:
    return run_command([sys.executable, "-m", "tests.faults.real_kills", "--work-dir", work_dir, *options], env=ENV)


def test_a_training_that_is_killed_four_times_ends_like_one_that_is_not(tmp_path: Path) -> None:
    run = soak(tmp_path / "soak", "--kills", 4, "--seed", os.environ.get("SOAK_SEED", "3"), "--epochs", 3)
    assert re.search(r"^kills / attempts / trainings +4 / \d+ / [1-4]$", run.stdout, re.MULTILINE), run.stdout
    assert "equals the uninterrupted one" in run.stdout
    assert re.search(r"^deviations +0$", run.stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--kills", 30, "--seed", 11),
        ("--kills", 6, "--seed", 2, "--launcher", "torchrun"),
        ("--kills", 6, "--seed", 4, "--epochs", 3, "--sentences"),
    ],
)
def test_many_kills(tmp_path: Path, options: Any) -> None:
    assert re.search(r"^deviations +0$", soak(tmp_path / "soak", *options).stdout, re.MULTILINE)


# ---- what counts as a deviation ---------------------------------------------------------------------------


def test_differences_are_named_with_their_place() -> None:
    import torch

    ones = torch.ones(2)
    assert first_difference({"a": [ones, 1]}, {"a": [torch.ones(2), 1]}) == ""
    assert first_difference({"a": [ones, 1]}, {"a": [ones + 1e-7, 1]}) == ".a[0]: tensors differ"
    assert first_difference({"a": [ones, 1]}, {"a": [ones, 2]}) == ".a[1]: 1 -> 2"
    assert first_difference({"a": 1}, {"b": 1}) == ": ['a', 'b'] on one side"


def test_errors_that_a_kill_does_not_explain_are_told(tmp_path: Path) -> None:
    log = tmp_path / "attempt-001-rank-0.log"
    log.write_text("Traceback (most recent call last):\nRuntimeError: Connection closed by peer\n")
    assert check_logs([log], killed=True) == []
    assert len(check_logs([log], killed=False)) == 1
    log.write_text("Traceback (most recent call last):\nValueError: shard w0 is damaged\n")
    assert "shard w0 is damaged" in check_logs([log], killed=True)[0]


def test_each_recorded_update_is_compared(tmp_path: Path) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    line = '{"update": %d, "loss": %s}\n'
    for folder, rows in ((whole, [(1, 0.5), (2, 0.25)]), (other, [(1, 0.5), (1, 0.5), (2, 0.25)])):
        folder.mkdir()
        (folder / "sums-0").write_text("".join(line % row for row in rows))
    assert compare_losses(whole, other, [], []) == []
    with open(other / "sums-0", "a") as file:
        file.write(line % (2, 0.2500001))
    assert "update 2" in compare_losses(whole, other, [], [])[0]
    (other / "sums-0").write_text(line % (1, 0.5))
    assert "updates [2] on one side only" in compare_losses(whole, other, [], [])[0]
