"""The sweep's grid, its table, and that a failed run neither stops nor hides the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List, Optional, Sequence

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.experiments import eps_sweep as sweep


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "neighbors-seed1.safetensors").touch()
    return tmp_path


def test_grid_leaves_out_what_is_plain_training(work: Path) -> None:
    grid = sweep.settings(sweep.EpsSweep(work))
    assert len(grid) == 1 + 2 * (5 * 2 - 1)
    assert len({setting.folder for setting in grid}) == len(grid)
    assert grid[0].eps is None and not [s for s in grid if s.eps == 0 and s.masks == "shared"]


def test_runs_everything_and_reports_failures(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    commands: List[List[str]] = []

    def fake_run(_: object, words: Sequence[object], *__: object) -> Optional[str]:
        command = [str(word) for word in words]
        commands.append(command)
        run = Path(command[3])
        if "0.3" in command:
            return "status 1: out of memory"
        nll = 5.0 if "plain" in command else 4.75
        lines = ['{"epoch": 1, "train_loss": "6", "train_num_updates": "4"}', "train"], [
            f'{{"epoch": 1, "valid_loss": "6", "valid_nll_loss": "{nll}", "valid_num_updates": "4"}}', "valid"
        ]  # fmt: skip
        (run / "train.log").write_text("".join(f"D | INFO | {tag} | {text}\n" for text, tag in lines))
        (run / "done").touch()
        return None

    processes = sweep.finish.__globals__["Processes"]
    monkeypatch.setattr(processes, "run", fake_run)
    monkeypatch.setitem(sweep.finish.__globals__, "stop_on_signals", lambda _: None)
    arguments = [
        "--work-dir",
        str(work),
        "--eps",
        "0",
        "0.3",
        "1",
        "--starts",
        "0",
        "--masks",
        "fresh",
        "--epochs",
        "2",
    ]
    assert main(["sweep", *arguments]) == 1
    printed = capsys.readouterr()
    assert "eps0.3-start0-fresh-seed1: status 1: out of memory" in printed.err
    assert "| 1 | 0 | fresh | 1 | 4.750 | 1 | -0.250 | 4.750 | – |" in printed.out
    assert "| 0.3 | 0 | fresh | 1 | – | – | – | – | – |" in printed.out
    rows = json.loads((work / "sweep-epochs2/sweep.json").read_text())
    assert [row["valid_nll"] for row in rows] == [5.0, 4.75, None, 4.75]
    last = commands[-1]
    assert last[last.index("--adv-eps") + 1] == "1" and last[last.index("--adv-step-size") + 1] == "1"
    assert last[-1] == str(work / "neighbors-seed1.safetensors")


def test_needs_the_quickstarts_data(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["sweep", "--work-dir", str(tmp_path)]) == 2
    assert "run scripts/quickstart.sh first" in capsys.readouterr().err
