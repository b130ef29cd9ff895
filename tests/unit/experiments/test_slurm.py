"""Runs as jobs: completed elsewhere, told of when they fail, ended together, found again, queued again."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterable, List, Optional

import pytest

from fairseq_adv.experiments.grid import Grid
from fairseq_adv.experiments.jobs import Command, Run, work_off
from fairseq_adv.experiments.slurm import RECORD, Jobs, RunOnNode, parse_parameters
from tests.unit.experiments import fake_slurm

pytest.importorskip("submitit")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "environ", os.environ)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("FAKE_SLURM", "")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    monkeypatch.setattr("fairseq_adv.experiments.slurm.POLL", 0.1)
    fake_slurm.install(tmp_path / "slurm")
    return tmp_path / "slurm/jobs"


def commands(*scripts: str) -> Iterable[Command]:
    return [["bash", "-c", script] for script in scripts]


def run_of(folder: Path, *scripts: str) -> Run:
    return Run(folder, partial(commands, *scripts))


def jobs_in(folder: Path, **parameters: object) -> Jobs:
    return Jobs(folder / "submitit", {"timeout_min": 5, **parameters})


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_runs_are_completed_and_failures_told(tmp_path: Path, slurm: Path, cluster: str) -> None:
    good = run_of(tmp_path / "good", f"echo ${{SLURM_JOB_ID:-none}} >{tmp_path}/told")
    bad = run_of(tmp_path / "bad", "echo broken >&2; exit 3", f"touch {tmp_path}/never")
    (reason,) = work_off([good, bad], jobs_in(tmp_path, cluster=cluster), jobs=2)
    assert reason.startswith("failed: bad: status 3: broken; its log") and not (tmp_path / "never").exists()
    assert ((tmp_path / "told").read_text() != "none\n") == (cluster == "slurm")
    assert not (tmp_path / "good" / RECORD).exists()


def started(launcher: Jobs, run: Run, reasons: List[Optional[str]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: reasons.append(launcher.complete(run)))
    thread.start()
    return thread


# Slow, as it is for idle cores alone: submitit's local executor kills a job a second after it has asked it to end,
# and the pretended cluster's files of states have to be there when they are asked for.
@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_an_interruption_ends_the_commands_of_the_jobs(tmp_path: Path, slurm: Path, cluster: str) -> None:
    launcher = jobs_in(tmp_path, cluster=cluster)
    reasons: List[Optional[str]] = []
    run = run_of(tmp_path / "long", f"echo $$ >{tmp_path}/pid; exec sleep 600")
    thread = started(launcher, run, reasons)
    wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().strip().isdigit())
    launcher.stop()
    thread.join(timeout=30)
    assert reasons == ["long: interrupted"]
    pid = int((tmp_path / "pid").read_text())
    if cluster == "local":  # a real cluster ends whatever a job has started
        wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
    else:
        os.kill(pid, 9)
    assert launcher.complete(run) == "long: interrupted"


def test_a_job_that_was_left_behind_is_waited_for(tmp_path: Path, slurm: Path) -> None:
    script = f"echo once >>{tmp_path}/starts; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    run, first = run_of(tmp_path / "run", script), jobs_in(tmp_path)
    with first._submitit:
        run.folder.mkdir()
        first._submitted(run)  # as by a command that was killed right after
    reasons: List[Optional[str]] = []
    wait_until((tmp_path / "starts").exists)
    thread = started(jobs_in(tmp_path), run, reasons)
    time.sleep(0.5)
    (tmp_path / "go").touch()
    thread.join(timeout=30)
    assert reasons == [None] and (tmp_path / "starts").read_text() == "once\n"
    assert jobs_in(tmp_path).complete(run) is None  # that job has ended: another one is made
    assert (tmp_path / "starts").read_text() == "once\nonce\n"


def test_a_preempted_job_queues_itself_again_and_its_run_goes_on(tmp_path: Path, slurm: Path) -> None:
    run = run_of(tmp_path / "run", f"echo start >>{tmp_path}/starts; [ -e {tmp_path}/go ] || exec sleep 600")
    reasons: List[Optional[str]] = []
    thread = started(jobs_in(tmp_path), run, reasons)
    wait_until((tmp_path / "starts").exists)
    (tmp_path / "go").touch()
    subprocess.run(["scancel", "1", "--signal", "USR2"], check=True)
    thread.join(timeout=60)
    assert reasons == [None] and (tmp_path / "starts").read_text() == "start\nstart\n"


def test_a_signal_while_a_command_starts_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command has been forked, and Popen has not come back."""
    started = []

    class Late(subprocess.Popen):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            time.sleep(0.5)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Late)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.25)
    try:
        with pytest.raises(KeyboardInterrupt):
            RunOnNode()(run_of(tmp_path / "run", "exec sleep 600"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        alive = started[0].poll() is None
        started[0].kill()
    assert not alive


def test_what_is_queued_again_is_the_same_run(tmp_path: Path) -> None:
    run, function = run_of(tmp_path / "run", "true"), RunOnNode()
    again = function.checkpoint(run)
    assert again.function is function and again.args == (run,)


def test_parameters() -> None:
    assert parse_parameters(["timeout_min=600", "slurm_partition=gpu"]) == {
        "timeout_min": 600,
        "slurm_partition": "gpu",
    }
    for wrong in ("timeout_min", "=3", "timeout_min="):
        with pytest.raises(ValueError, match=f"--slurm takes KEY=VALUE .*got '{wrong}'"):
            parse_parameters([wrong])


@pytest.mark.parametrize(
    "parameters", [{"cluster": "moon"}, {"nodes_of_gold": 1}, {"timeout_min": "long"}], ids=lambda p: next(iter(p))
)
def test_what_submitit_does_not_know_is_refused(tmp_path: Path, slurm: Path, parameters: dict) -> None:
    with pytest.raises(ValueError, match="--slurm: "):
        Jobs(tmp_path / "submitit", parameters)


def test_a_grid_on_a_cluster_runs_all_at_a_time_and_has_no_devices_here(tmp_path: Path) -> None:
    here = Grid([str(tmp_path)], ["plain", "arch"], seeds=[1, 2, 3])
    there = Grid([str(tmp_path)], ["plain", "arch"], seeds=[1, 2, 3], slurm=["timeout_min=9"])
    assert (here.at_a_time, there.at_a_time) == (1, 6)
    with pytest.raises(ValueError, match="--devices are those of this machine"):
        Grid([str(tmp_path)], ["plain"], devices=[0], slurm=["timeout_min=9"])
    with pytest.raises(ValueError, match="--slurm takes KEY=VALUE"):
        Grid([str(tmp_path)], ["plain"], slurm=["gpu"])
