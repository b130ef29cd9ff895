"""Every command of a code block in the documentation understands its arguments, without doing what they ask for."""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Sequence

import pytest

from fairseq_adv.cli import main as command
from fairseq_adv.experiments.commands import TRAIN_SMALL
from tests.unit.docs.shown_commands import PAGES, ROOT, Shown, recorders, shown_by

REACHED = 77  # exit status: the arguments were understood, the work would begin
# Sourced by every bash script here before its first line. Whatever would do something ends it; a script that hands its
# arguments on (with exec) tells to whom.
STOP = f"""
stop_here() {{ exit {REACHED}; }}
mkdir() {{ stop_here; }}
tee() {{ stop_here; }}
fairseq-adv() {{ if [ "$1" = user-dir ]; then echo "$PACKAGE"; else stop_here; fi; }}
fairseq-train() {{ stop_here; }}
torchrun() {{ stop_here; }}
scontrol() {{ stop_here; }}
python() {{ if [ -z "$THROUGH" ]; then stop_here; fi; }}
exec() {{ printf '%s\\0' "$@" >"$HANDED_ON"; exit {REACHED}; }}
"""
# These hand their arguments on, after an environment has been set up.
THROUGH = ("soak.sh", "test.sh", "large_batch_study.sh", "evaluate_run.sh", "train_small.sh")


class Understood(Exception):
    """Raised where a command has read its arguments."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> List[Shown]:
    programs = recorders(tmp_path_factory.mktemp("shown") / "programs")
    return [shown for page in PAGES for shown in shown_by(page, programs, tmp_path_factory.mktemp(page.stem))]


def understand_fairseq_adv(words: Sequence[str]) -> None:
    command.parse([word for word in words if word != "…"])


def understand_python(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script or a module until it has parsed its arguments."""
    real = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *args: Any, **more: Any) -> None:
        real(self, *args, **more)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", list(words[1:] if words[0] == "-m" else words))
    with pytest.raises(Understood):
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            monkeypatch.syspath_prepend(str((ROOT / words[0]).parent))  # as Python does for a program
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def reached(script: Path, words: Sequence[str], folder: Path, tmp_path: Path) -> List[str]:
    """Run a bash script until it would do something; what it hands its arguments on to, if it does."""
    (tmp_path / "stop.sh").write_text(STOP)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to("/bin/false")
    handed_on = tmp_path / "handed-on"
    environment = {
        **os.environ,
        "BASH_ENV": str(tmp_path / "stop.sh"),
        "VIRTUAL_ENV": str(tmp_path / "venv"),
        "THROUGH": "1" if script.name in THROUGH else "",
        "HANDED_ON": str(handed_on),
        "PACKAGE": str(ROOT / "fairseq_adv"),
        "SLURM_JOB_NODELIST": "node0",
    }
    call = ["/bin/bash", str(script), *words]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    expected = 0 if "--dry-run" in words else REACHED  # that one does nothing by itself
    assert done.returncode == expected, f"{' '.join(call)} ended with {done.returncode}: {done.stderr}"
    return handed_on.read_text().split("\0")[:-1] if handed_on.is_file() else []


def understand(shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program, *words = shown.words
    folder = shown.page.parent if shown.page.parent not in (ROOT / "docs", ROOT) else ROOT
    if program == "fairseq-adv":
        understand_fairseq_adv(words)
    elif program == "python":
        understand_python(words, monkeypatch)
    elif program == "bash":
        if words[0] == str(TRAIN_SMALL):  # it looks for its data before anything else
            folder = tmp_path
            (folder / words[1]).mkdir()
            (folder / words[1] / "train.en-de.en.idx").touch()
        further = reached(ROOT / folder / words[0], words[1:], folder, tmp_path)
        if further and further[:3] != ["python", "-m", "pytest"]:  # pytest's own arguments are pytest's to refuse
            (tmp_path / "further").mkdir()
            understand(Shown(shown.page, further), monkeypatch, tmp_path / "further")
    elif program == "sbatch":
        script = next(word for word in words if word.endswith(".sh"))
        reached(folder / script, words[words.index(script) + 1 :], folder, tmp_path)


def test_the_documentation_shows_commands(commands: List[Shown]) -> None:
    shown = {(each.page.name, each.words[0]) for each in commands}
    assert {("README.md", "bash"), ("README.md", "fairseq-adv"), ("quickstart.md", "python")} <= shown
    assert len(commands) > 50


def test_every_shown_command_understands_its_arguments(
    commands: List[Shown], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failures = []
    for number, shown in enumerate(dict.fromkeys((each.page, *each.words) for each in commands)):
        page, *words = shown
        each = Shown(page, list(words))  # type: ignore[arg-type]
        (tmp_path / str(number)).mkdir()
        try:
            with monkeypatch.context() as patched:
                understand(each, patched, tmp_path / str(number))
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            failures.append(f"{each.text}: {error}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize(
    "words",
    [
        ["bash", "scripts/quickstart.sh", "--fast"],
        ["bash", "scripts/soak.sh", "--fast"],
        ["bash", "scripts/evaluate_run.sh", "bin"],
        ["bash", "scripts/absent.sh"],
        ["bash", "examples/translation/iwslt14-de-en.sh", "cook"],
        ["python", "scripts/run_grid.py", "work"],
        ["python", "benchmarks/step_time.py", "--fast"],
        ["python", "scripts/absent.py"],
        ["fairseq-adv", "score"],
        ["fairseq-adv", "cook"],
    ],
    ids=" ".join,
)
def test_what_is_not_understood_is_noticed(words: List[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises((SystemExit, AssertionError, FileNotFoundError)):
        understand(Shown(ROOT / "README.md", words), monkeypatch, tmp_path)
