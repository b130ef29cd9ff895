"""benchmarks/gpu.sh: what it would run, and the whole way on a CPU with sizes that mean nothing."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def run_script(*options, folder=None, **more):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}
    words = ["bash", str(SCRIPT), *map(str, options)]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)


def planned(*options):
    """Name and words of each run that --dry-run tells of."""
    lines = run_script("--dry-run", *options).stdout.splitlines()
    return {name: shlex.split(words) for name, _, words in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def plan():
    return planned()


def test_a_dry_run_does_nothing_and_names_runs_of_at_most_eight_minutes(tmp_path):
    assert run_script("--dry-run", "--output", tmp_path / "results", folder=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert all(words[:2] == ["timeout", "480"] for words in planned().values())


def test_every_method_is_measured_in_every_precision_and_size(plan):
    from benchmarks.step_variants import VARIANTS

    names = {variant.name for variant in VARIANTS} - {"plain"}
    for size in ("base", "big"):
        for precision in ("fp16", "bf16", "amp"):
            setting = f"--size {size} --precision {precision} --max-tokens 4096"
            mine = [words for words in plan.values() if setting in " ".join(words) and "step_time" in words[3]]
            measured = {word for words in mine for word in words[words.index("--methods") + 1 : words.index("--json")]}
            assert names <= measured, setting


def test_each_run_is_understood_by_its_program(plan, tmp_path):
    from benchmarks import peers  # which finds its neighbours by their names

    step_time = importlib.import_module("step_time")
    parsers = {"step_time.py": step_time.parse, "peers.py": peers.parse}
    for words in plan.values():
        program = Path(words[3]).name
        if program in parsers:
            parsers[program](words[4:])
    assert {Path(words[3]).name for words in plan.values()} == {*parsers, "optimizer_step.py"}


def test_one_run_can_be_chosen():
    assert list(planned("--only", "optimizer-step")) == ["optimizer-step"]


@pytest.mark.parametrize("options", [["--device", "tpu"], ["--output"], ["--fast"], []])
def test_what_cannot_be_is_refused(options, tmp_path):
    done = run_script(*options, folder=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_whole_way_on_a_cpu(tmp_path):
    options = ("--device", "cpu", "--tiny", "--output", tmp_path / "results")
    done = run_script(*options)
    assert done.returncode == 0, done.stderr + "".join(p.read_text() for p in tmp_path.rglob("*.log"))
    runs = json.loads((tmp_path / "results" / "gpu.json").read_text())["runs"]
    assert set(runs) == {"step-tiny-fp32", "peers-tiny-fp32"}
    steps = {row["method"]: row for row in runs["step-tiny-fp32"]["rows"]["30"]}
    assert steps["plain"]["ratio"] == 1.0 and steps["r3f"]["units"] == 6
    assert 6 <= steps["arch refresh, cached pairs"]["units"] < 12  # the ascent of the few rows that are cached
    assert all(row["seconds"] > 0 for run in runs.values() for row in run["rows"]["30"])
    table = (tmp_path / "results" / "gpu.md").read_text()
    assert table == done.stdout and "| peers-tiny-fp32 | simcut, 30 words |" in table
    again = run_script(*options)
    assert again.returncode == 0 and again.stderr.count("is there") == 2 and again.stdout == table


def test_a_run_that_fails_is_told_and_tried_again(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "timeout").write_text("#!/bin/sh\necho out of memory >&2\nexit 7\n")
    (programs / "timeout").chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = run_script("--device", "cpu", "--tiny", "--output", tmp_path / "results", PATH=path)
    assert done.returncode == 1
    assert "- step-tiny-fp32: failed with status 7" in done.stdout
    assert "step-tiny-fp32: failed with status 7 (out of memory)" in done.stderr
    assert json.loads((tmp_path / "results" / "gpu.json").read_text())["failed"] == {
        "peers-tiny-fp32": "7",
        "step-tiny-fp32": "7",
    }
