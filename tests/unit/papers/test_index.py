"""Commands in the index of the papers parse, options are fairseq-train's, and what is called a default is one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, List, Sequence, Tuple

import pytest
from fairseq import options

import fairseq_adv
from fairseq_adv.criterions.frame.presets import PRESETS
from fairseq_adv.papers.hyperparameters import ARCH_VALUES, CONADV_VALUES
from fairseq_adv.papers.index import ARCH, CONADV, SCALA, Item
from fairseq_adv.papers.results import Batch, results
from tests.unit.docs.shown_commands import ROOT, Shown
from tests.unit.docs.test_commands import understand

TABLES = {"arch": (*ARCH, *ARCH_VALUES), "conadv": (*CONADV, *CONADV_VALUES), "scala": SCALA}
ROWS = [(method, item) for method, table in TABLES.items() for item in table if item.ours]
OPTIONS = [row for row in ROWS if row[1].ours.startswith("--")]
COMMANDS = [row for row in ROWS if not row[1].ours.startswith("--")]


def name(row: Tuple[str, Item]) -> str:
    return f"{row[0]} {row[1].item} {row[1].what}"


def parsed(words: Sequence[str], method: str) -> Any:
    """What ``fairseq-train`` makes of *words* with the criterion *method* where they name none."""
    fairseq_adv.register()
    sentences = any(word.endswith("_sentence_prediction") for word in words)
    model = ["--task", "adversarial_sentence_prediction", "--num-classes", "2", "--arch", "adv_roberta"]
    if not sentences:
        model = ["--task", "adversarial_translation"] + ["--arch", "transformer"] * ("--arch" not in words)
    given = list(words) if "--criterion" in words else ["--criterion", f"{method}_label_smoothed", *words]
    parser = options.get_training_parser("adversarial_translation")
    return options.parse_args_and_arch(parser, ["DATA", *model, *given])


@pytest.mark.parametrize(("method", "item"), OPTIONS, ids=map(name, OPTIONS))
def test_fairseq_train_takes_the_options(method: str, item: Item) -> None:
    words = shlex.split(item.ours)
    found = vars(parsed(words, method))
    named = [word for word in words if word.startswith("--")]
    assert named and all(word.strip("-").replace("-", "_") in found for word in named)


@pytest.mark.parametrize(("method", "item"), COMMANDS, ids=map(name, COMMANDS))
def test_commands_understand_their_arguments(
    method: str, item: Item, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    understand(Shown(ROOT / "docs/papers.md", shlex.split(item.ours)), monkeypatch, tmp_path)


def defaults() -> List[Tuple[str, Item]]:
    return [row for row in OPTIONS if row[1].status.startswith("the default")]


@pytest.mark.parametrize(("method", "item"), defaults(), ids=map(name, defaults()))
def test_what_is_called_a_default_changes_nothing(method: str, item: Item) -> None:
    words = shlex.split(item.ours)
    kept = [word for option in ("--optimizer",) if option in words for word in (option, words[words.index(option) + 1])]
    assert vars(parsed(words, method)) == vars(parsed(kept, method))


def test_values_that_are_no_default_change_something() -> None:
    """Else the test above could not fail."""
    assert vars(parsed(["--adv-eps", "0.2"], "arch")) != vars(parsed([], "arch"))


def of_preset() -> List[Tuple[str, Item]]:
    return [row for row in OPTIONS if row[1].status.startswith("of `--adv-preset arch-b2`")]


@pytest.mark.parametrize(("method", "item"), of_preset(), ids=map(name, of_preset()))
def test_the_preset_of_appendix_b2_has_the_values(method: str, item: Item) -> None:
    found = vars(parsed(shlex.split(item.ours), method))
    fields = [word[2:].replace("-", "_") for word in shlex.split(item.ours) if word.startswith("--")]
    for field in set(fields) - {"criterion"}:
        assert str(PRESETS["arch-b2"][field]) == str(found[field]), field


def test_the_recipe_of_glue_has_the_values_of_appendix_b2() -> None:
    glue, shared = ((ROOT / f"examples/sentence_prediction/{stem}.sh").read_text() for stem in ("glue", "recipe"))
    assert re.search(r"^encoder=hf:bert-base-uncased\b", glue, re.MULTILINE)
    assert re.search(
        r"^epochs=10 batch=(8|16|32|64|128) lr=(5e-5|8e-5|1e-4|2e-4) dropout=(0|0\.1)\b", glue, re.MULTILINE
    )
    assert "--adv-preset arch-b2" in glue and "round(total / 10)" in shared and "--pooler-dropout 0.1 " in shared


def test_every_result_that_can_be_reproduced_is_in_the_index() -> None:
    asked = {word for _, item in COMMANDS for word in shlex.split(item.ours) if "fairseq-adv reproduce" in item.ours}
    assert {result.name for result in results(Batch())} <= asked


def test_what_has_no_command_says_why() -> None:
    assert all(item.ours or item.status.startswith("not ") for table in TABLES.values() for item in table)


def test_every_numbered_thing_of_the_papers_is_in_the_index() -> None:
    """Tables, figures and equations as the papers number them: ARCH has 8, 4 and 4; ConAdv 6, 4 and 36."""
    counts = {"arch": {"Table": 8, "Fig.": 4, "Eq.": 4}, "conadv": {"Table": 6, "Fig.": 4, "Eq.": 36}}
    for method, kinds in counts.items():
        for kind, count in kinds.items():
            told = " ".join(item.item for item in TABLES[method] if item.item.startswith(kind))
            numbers = {int(number) for number in re.findall(r"(?<![\w.])\d+", told)}
            for first, last in re.findall(r"(\d+)–(\d+)", told):
                numbers |= set(range(int(first), int(last) + 1))
            assert set(range(1, count + 1)) <= numbers, f"{method}: {kind}"
