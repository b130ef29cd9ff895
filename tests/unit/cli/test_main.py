"""The command's frame: sub-commands, exit statuses and one-line errors."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

import fairseq_adv
from fairseq_adv.cli.main import COMMANDS, main


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_sub_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    description = importlib.import_module(COMMANDS[name]).HELP
    shown = capsys.readouterr().out
    assert "".join(description.split()) in "".join(shown.split())  # wherever the lines break


def test_user_dir_is_this_package_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["user-dir"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.is_absolute() and path.samefile(Path(fairseq_adv.__file__).parent)
    assert main(["user-dir", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"user_dir": str(path)}


@pytest.mark.parametrize("error", [ValueError("bad value"), FileNotFoundError("no file"), ImportError("no module")])
def test_bad_input_is_one_line_and_status_2(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr("fairseq_adv.cli.user_dir.run", fail)
    assert main(["user-dir"]) == 2
    assert capsys.readouterr().err == f"fairseq-adv user-dir: {error}\n"


def test_a_missing_or_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["nothing-like-this"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
