"""Two trainings in one folder: the second waits, also for what a killed shell has left running."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HOLD = f". {ROOT}/fairseq_adv/experiments/one_at_a_time.sh\n"

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")


def shell(script: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen, seconds: float = 30) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_what_a_killed_shell_left_running_is_waited_for(tmp_path: Path) -> None:
    first = shell(HOLD + f"hold {tmp_path}; sleep 600 >/dev/null 2>&1 & echo $!; wait")
    assert first.stdout is not None
    training = int(first.stdout.readline())
    first.kill()
    second = shell(HOLD + f"hold {tmp_path}; echo mine")
    assert second.stderr is not None and "another process trains in" in second.stderr.readline()
    assert not ended(second, 0.5)
    subprocess.run(["kill", str(training)], check=True)
    assert ended(second) and second.communicate()[0] == "mine\n"


def test_a_shell_that_goes_on_to_another_folder_lets_go_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = shell(HOLD + f"hold {tmp_path}/a; hold {tmp_path}/b; echo b; read -r _")
    assert first.stdout is not None and first.stdout.readline() == "b\n"
    assert ended(shell(HOLD + f"hold {tmp_path}/a"))
    second = shell(HOLD + f"hold {tmp_path}/b")
    assert not ended(second, 0.5)
    first.kill()
    assert ended(second)


@pytest.mark.parametrize("begin", ["recipe", "train_small"])
def test_every_way_of_training_waits(tmp_path: Path, begin: str) -> None:
    """A run of the same settings that is done by the time its folder is free is left alone."""
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "train.en-de.en.idx").touch()
    commands = {
        "recipe": f"scripts={ROOT}/scripts; . {ROOT}/examples/steps.sh; begin_run {run} 'plain 60 1 '",
        "train_small": f"bash {ROOT}/fairseq_adv/experiments/train_small.sh {tmp_path} {run} plain",
    }
    first = shell(HOLD + f"hold {run}; echo; read -r _; touch {run}/done")
    assert first.stdout is not None and first.stdout.readline() == "\n"
    second = shell(commands[begin])
    assert second.stderr is not None and f"another process trains in {run}" in second.stderr.readline()
    assert not (run / "settings").exists() and not ended(second, 0.2)
    (run / "done").touch()
    first.kill()
    assert ended(second) and second.returncode == 0 and (run / "settings").read_text() == "plain 60 1 \n"
