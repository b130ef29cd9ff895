"""When translations are made again, with which search, and what is refused before anything is translated."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.scoring import evaluation as module
from fairseq_adv.scoring.evaluation import Evaluation

GENERATED = "S-0\tThe light\nT-0\tDas Licht\nH-0\t-0.5\tDas Licht\nD-0\t-0.5\tDas Licht\nP-0\t-0.5 -0.5 -0.5\n"


@pytest.fixture
def words(tmp_path: Path) -> List[str]:
    for folder in ("data", "run/checkpoints", "raw"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("data/test.en-de.de.idx", "run/checkpoints/checkpoint_best.pt", "run/checkpoints/checkpoint_last.pt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    for subset in ("valid", "test"):
        (tmp_path / f"raw/{subset}.de").write_text("Das Licht\n")
    return [str(tmp_path / folder) for folder in ("data", "run", "raw")]


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> List[List[str]]:
    """The command lines of ``fairseq-generate``, which prints one sentence here."""
    made: List[List[str]] = []
    real = module.generate_command

    def command(*args: Any) -> List[str]:
        made.append(real(*args))
        return [sys.executable, "-c", f"print({GENERATED!r}, end='')"]

    monkeypatch.setattr(module, "generate_command", command)
    return made


def after(command: List[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_translates_both_sets_once_and_again_for_another_search(
    words: List[str], searches: List[List[str]], capsys: pytest.CaptureFixture
) -> None:
    assert main(["evaluate", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sentences"] == 1
    assert [after(command, "--gen-subset") for command in searches] == ["valid", "test"]
    assert [after(command, "--nbest") for command in searches] == ["5", "5"]
    assert main(["evaluate", *words]) == 0 and len(searches) == 2, "the same search is not made again"
    assert main(["evaluate", *words, "--lenpen", "0.6", "--", "--max-len-b", "50"]) == 0
    assert after(searches[2], "--lenpen") == "0.6" and searches[2][-2:] == ["--max-len-b", "50"] and len(searches) == 3
    assert "lenpen" in json.loads((Path(words[1]) / "score.json").read_text())
    model = Path(words[1]) / "checkpoints/checkpoint_best.pt"
    os.utime(model)
    os.utime(Path(words[1]) / "generate-test.out", (1, 1))
    assert main(["evaluate", *words, "--lenpen", "0.6", "--", "--max-len-b", "50"]) == 0 and len(searches) == 4


def test_a_run_without_a_record_was_searched_with_the_defaults(words: List[str], searches: List[List[str]]) -> None:
    for subset in ("valid", "test"):
        (Path(words[1]) / f"generate-{subset}.out").write_text(GENERATED)
    assert main(["evaluate", *words]) == 0 and searches == []
    assert main(["evaluate", *words, "--checkpoint", "checkpoint_last.pt"]) == 0 and len(searches) == 2


def test_a_failed_search_leaves_no_translations(
    words: List[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    failing = [sys.executable, "-c", "import sys; print('H-0'); sys.exit('out of memory')"]
    monkeypatch.setattr(module, "generate_command", lambda *_: failing)
    assert main(["evaluate", *words]) == 2
    assert f"fairseq-generate failed on valid: see {words[1]}/generate.log" in capsys.readouterr().err
    assert (Path(words[1]) / "generate.log").read_text() == "out of memory\n"
    assert not list(Path(words[1]).glob("generate-*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--checkpoint", "other.pt"], "no checkpoint"),
        (["--beam", "0"], "--beam must be at least 1, got 0"),
        (["--pair", "german"], "--pair must be source-target such as en-de, got german"),
        (["--pair", "en-fr"], "no references"),
    ],
)
def test_refusals(
    words: List[str], searches: List[List[str]], more: List[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["evaluate", *words, *more]) == 2
    assert message in capsys.readouterr().err and searches == []


def test_tokenised_data_are_scored_as_tokens(tmp_path: Path) -> None:
    scoring = module.scoring_of(Evaluation(tmp_path, tmp_path, tmp_path, tokenized=True, lenpen=0.6), "de")
    assert (scoring.detokenize, scoring.tokens, scoring.searched_with, scoring.tune) == (True, "generated", 0.6, None)
