"""The engine of grids: each run once, locked as long as anything of it lives, devices never shared, all endable."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest

from fairseq_adv.experiments import jobs


def bash(script: str) -> List[str]:
    return ["bash", "-c", script]


def run_of(folder: Path, *scripts: str) -> Any:
    return jobs.Run(folder, lambda: [bash(script) for script in scripts])


def test_steps_go_in_order_and_stop_at_the_first_that_fails(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/train.log").write_text("".join(f"line {i}\n" for i in range(100)))
    good = run_of(tmp_path / "b", f"echo b1 >>{tmp_path}/notes", f"echo b2 >>{tmp_path}/notes")
    bad = run_of(tmp_path / "a", "echo broken >&2; exit 3", f"touch {tmp_path}/never")
    (reason,) = jobs.work_off([bad, good], jobs.Processes(), jobs=1)
    assert reason.startswith(f"failed: a: status 3: broken; its log {tmp_path}/a/train.log ends with")
    assert reason.splitlines()[1:] == [f"    | line {i}" for i in range(92, 100)]
    assert (tmp_path / "notes").read_text().split() == ["b1", "b2"] and not (tmp_path / "never").exists()


def test_each_device_has_one_run_at_a_time(tmp_path: Path) -> None:
    """Six runs on two devices: a run fails if its device's folder, which it makes and removes, is there."""
    use = f"d={tmp_path}/gpu-$CUDA_VISIBLE_DEVICES; mkdir $d && sleep 0.1 && rmdir $d; echo $d >>{tmp_path}/used"
    runs = [run_of(tmp_path / str(i), use) for i in range(6)]
    assert jobs.work_off(runs, jobs.Processes([4, 7]), jobs=2) == []
    assert set((tmp_path / "used").read_text().split()) == {f"{tmp_path}/gpu-4", f"{tmp_path}/gpu-7"}


def test_a_run_that_another_process_holds_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "one").mkdir()
    with (tmp_path / "one/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reasons: List[List[str]] = []
        work = run_of(tmp_path / "one", f"touch {tmp_path}/ran")
        thread = threading.Thread(target=lambda: reasons.append(jobs.work_off([work], jobs.Processes(), jobs=1)))
        thread.start()
        time.sleep(0.5)
        assert not (tmp_path / "ran").exists()
    thread.join(timeout=20)
    assert reasons == [[]] and (tmp_path / "ran").exists()
    assert "one: another process is at it; waiting" in capsys.readouterr().err


def test_lock_outlives_a_killed_script(tmp_path: Path) -> None:
    """kill -9 of the script leaves its command running; the run's lock is free only when that has ended."""
    script = (
        "import pathlib; from fairseq_adv.experiments import jobs\n"
        f"command = ['bash', '-c', 'touch {tmp_path}/started; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done']\n"
        f"jobs.work_off([jobs.Run(pathlib.Path('{tmp_path}/run'), lambda: [command])], jobs.Processes(), 1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    _wait_until((tmp_path / "started").exists)
    process.kill()
    process.wait()
    assert not _can_lock(tmp_path / "run/lock")
    (tmp_path / "go").touch()
    _wait_until(lambda: _can_lock(tmp_path / "run/lock"))


def test_reasons_come_in_the_order_of_the_runs(tmp_path: Path) -> None:
    """The first run ends last, and many end in one turn of the loop."""
    runs = [run_of(tmp_path / f"{i:02}", f"sleep {0.3 if i == 0 else 0}; exit 1") for i in range(12)]
    reasons = jobs.work_off(runs, jobs.Processes(), jobs=12)
    assert [reason.split(":")[1] for reason in reasons] == [f" {i:02}" for i in range(12)]


def test_stop_ends_the_whole_group_and_starts_nothing_more(tmp_path: Path) -> None:
    processes = jobs.Processes()
    reasons: List[List[str]] = []
    runs = [run_of(tmp_path / "a", f"sleep 60 & echo $! >{tmp_path}/pid; wait"), run_of(tmp_path / "b", "exit 0")]
    thread = threading.Thread(target=lambda: reasons.append(jobs.work_off(runs, processes, jobs=1)))
    thread.start()
    _wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    processes.stop()
    thread.join(timeout=20)
    first, second = reasons[0]
    assert "status -15" in first and second == "b: interrupted"
    child = int((tmp_path / "pid").read_text())
    _wait_until(lambda: not _alive(child))


def test_progress_tells_epochs_and_losses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "x").mkdir()
    lines = [f'D | INFO | valid | {{"epoch": {e}, "valid_nll_loss": "{9 - e}.25"}}\n' for e in (1, 2, 3)]
    (tmp_path / "x/train.log").write_text("".join(lines))
    show = jobs._Progress(total=4, epochs=40)
    show(1, [tmp_path / "x", tmp_path / "new"])
    (tmp_path / "x/done").touch()
    show(1, [tmp_path / "x"])
    assert capsys.readouterr().err.splitlines() == [
        "  1/4 runs  x epoch 3/40 nll 6.25  new epoch 0/40",
        "  1/4 runs  x scoring",
    ]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _can_lock(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
