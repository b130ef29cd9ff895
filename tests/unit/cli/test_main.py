"""The command's frame: sub-commands, exit statuses and one-line errors."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Sequence

import pytest

import fairseq_adv
from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.cli.main import COMMANDS, main, module_of
from tests.integration.running import run_command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_sub_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    module = module_of(name)
    shown = capsys.readouterr().out
    assert "".join(module.HELP.split()) in "".join(shown.split())  # wherever the lines break
    assert all(line in shown for line in module.EXAMPLE.splitlines())
    assert f"fairseq-adv {name}" in module.EXAMPLE


WITHOUT_JSON = {
    **dict.fromkeys(("corpus tokenize", "corpus subwords"), "they print nothing"),
    "corpus debian": "corpus.json of its output says it",
    **dict.fromkeys(("grid", "sweep", "reproduce"), "report and compare tell of their runs, as JSON too"),
    **dict.fromkeys(
        ("study large-batch", "study large-batch-sentences", "study regime", "study sentences"),
        "they write their tables as JSON beside the text",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_facts_are_printed_as_json_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    actions = ["info"] if name == "cache" else []
    with pytest.raises(SystemExit):
        main([*name.split(), *actions, "--help"])
    assert ("--json" in capsys.readouterr().out) == (name not in WITHOUT_JSON)


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_words_end_with_status_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--no-such-option"])
    assert stopped.value.code == 2 and "usage: fairseq-adv" in capsys.readouterr().err


MISSING = {  # each has its work in a folder or file that is not there
    "neighbors": ["absent", "--output", "out", "--embeddings", "random"],
    "convert-bert": ["hf:absent", "--output", "out"],
    "sentences binarise": ["absent", "--encoder", "absent", "--output", "out"],
    "sentences baselines": ["absent"],
    "sentences evaluate": ["absent", "--data", "absent"],
    "sentences table": ["absent", "--output", "out"],
    "cache": ["info", "absent"],
    "corpus unpack": ["absent.tgz", "--output", "out", "*"],
    "corpus text": ["absent", "--languages", "en", "de", "--output", "out", "--set", "train=a.{lang}"],
    "corpus tokenize": ["absent", "--languages", "en", "de", "--output", "out"],
    "corpus clean": ["absent", "--plain", "absent", "--languages", "en", "de", "--output", "out"],
    "corpus subwords": ["absent", "--languages", "en", "de", "--output", "out", "--vocabulary", "10"],
    "average": ["--inputs", "absent.pt", "--output", "out.pt"],
    "evaluate": ["absent", "absent", "absent"],
    "score": ["absent.out"],
    "compare": ["absent"],
    "grid": ["absent", "--variants", "plain"],
    "report": ["absent", "--output", "out"],
    "probe": ["absent", "--output", "out"],
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_one_line_and_status_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*name.split(), *MISSING[name]]) == 2
    told = capsys.readouterr().err
    assert f"fairseq-adv {name}: " in told and "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_help_lists_the_groups_and_a_group_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words, listed in (([], {name.split()[0] for name in COMMANDS}), (["study"], {"large-batch"})):
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--help"])
        shown = capsys.readouterr().out
        assert stopped.value.code == 0 and listed <= set(shown.split())


@dataclass(frozen=True)
class Some:
    """One field of each kind."""

    files: Sequence[Path] = field(metadata={"positional": True, "help": "files"})
    out: Path = field(metadata={"help": "folder"})
    counts: Sequence[int] = field(default=(1, 2), metadata={"help": "numbers, 50 % of them odd"})
    share: Optional[float] = field(default=None, metadata={"help": "of it"})
    kind: str = field(default="a", metadata={"help": "which", "choices": ["a", "b"]})
    quick: bool = field(default=False, metadata={"help": "now"})

    def __post_init__(self) -> None:
        if min(self.counts) < 1:
            raise ValueError(f"--counts must be at least 1, got {min(self.counts)}")


def parsed(*words: str) -> Any:
    parser = argparse.ArgumentParser()
    add_options(parser, Some)
    return from_arguments(Some, parser.parse_args(words))


def test_fields_become_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed("f", "g", "--out", "o") == Some([Path("f"), Path("g")], Path("o"))
    every = parsed("f", "--out", "o", "--counts", "3", "--share", "0.5", "--kind", "b", "--quick")
    assert every == Some([Path("f")], Path("o"), [3], 0.5, "b", True)
    for wrong in (["f"], ["--out", "o"], ["f", "--out", "o", "--kind", "c"], ["f", "--out", "o", "--counts", "x"]):
        with pytest.raises(SystemExit):
            parsed(*wrong)
    with pytest.raises(ValueError, match="--counts must be at least 1, got 0"):
        parsed("f", "--out", "o", "--counts", "0")
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "numbers, 50 % of them odd (default: 1 2)" in shown and "of it --kind {a,b}" in shown


def test_user_dir_is_this_package_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["user-dir"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.is_absolute() and path.samefile(Path(fairseq_adv.__file__).parent)
    assert main(["user-dir", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"user_dir": str(path)}


@pytest.mark.parametrize("level, told", [("", ["WARNING: warned"]), ("INFO", ["INFO: told", "WARNING: warned"])])
def test_what_a_command_imports_logs_warnings_alone(level: str, told: Sequence[str]) -> None:
    """In a process of its own: pytest's handlers are in place before any command here."""
    lines = [
        "import logging",
        "from fairseq_adv.cli.main import main",
        "main(['options', '--json'])",  # imports every task of fairseq, one of which sets the root logger up
        "log = logging.getLogger('fairseq.tasks.translation')",
        "log.info('told'), log.warning('warned')",
    ]
    env = {"LOGLEVEL": level} if level else {}
    run = run_command([sys.executable, "-c", "\n".join(lines)], env=env)
    assert [line for line in run.stderr.splitlines() if line.endswith(("told", "warned"))] == told


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
