"""The study of methods on sentences, on a recipe that makes up its scores: what is trained, chosen and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.experiments.sentence_study import STRENGTHS, variant

pytest.importorskip("sklearn")

RECIPE = """#!/usr/bin/env bash
here=$(cd "$(dirname "$0")" && pwd)
while [[ $1 == --* ]]; do if [ "$1" = --name ]; then name=$2; fi; shift 2; done
case $1 in
  folder) if [ $# -eq 1 ]; then echo "$here/runs"; else echo "$here/runs/$2-seed$3"; fi ;;
  baselines) echo '{"baselines": {}}' >"$here/baselines.json" ;;
  train) echo "$name $3 $*" >>"$here/notes" ;;
  evaluate) python "$here/score.py" "$2" "$3" "$here/runs/$2-seed$3" ;;
esac
"""
# the validation set likes a strength of 0.3 with seed 1, the test set one of 0.1; one of 0.03 diverged
SCORE = """import json, pathlib, sys
name, seed, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
valid = float("nan") if "0.03" in name else 0.9 if "0.3" in name else 0.8
right = 15 if "0.1" in name else 10 + seed
(folder / "score.json").write_text(json.dumps({"metrics": ["accuracy"], "subsets": {
    "valid": {"accuracy": valid}, "test": {"accuracy": right / 20}}}))
(folder / "run.json").write_text(json.dumps({"method": name, "seed": seed}))
(folder / "targets.test").write_text("1\\n" * 20)
(folder / "predictions.test").write_text("1\\n" * right + "0\\n" * (20 - right))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "score.py").write_text(SCORE)
    (tmp_path / "made_up.sh").write_text(RECIPE)
    return tmp_path / "made_up.sh"


def study(recipe: Path, *words: str) -> int:
    return main(["study", "sentences", f"{recipe} --layers 1", *words])


def test_the_strength_is_chosen_on_validation_and_goes_on_to_the_other_seeds(recipe: Path, capsys: Any) -> None:
    words = ["--methods", "plain", "smart", "rdrop:0.3,2", "--shared", "smart", "--seeds", "1", "2", "--", "--fp16"]
    assert study(recipe, *words) == 0
    trained = [" ".join(line.split()[:2]) for line in (recipe.parent / "notes").read_text().splitlines()]
    first = ["plain 1", "smart-0.03 1", "smart-0.1 1", "smart-0.3 1", "rdrop-0.3 1", "rdrop-2 1"]
    assert trained[:6] == first
    second = {f"{name} 2" for name in ("plain", "smart-0.3", "rdrop-0.3", "smart-0.3-shared")}
    assert {name for name in trained[6:] if name not in first} == second | {"smart-0.3-shared 1"}
    notes = (recipe.parent / "notes").read_text().splitlines()
    shared = next(line for line in notes if "-shared" in line)
    assert shared.endswith("train smart 1 -- --fp16 --adv-steps 1 --adv-eps 0.3 --adv-outer-masks shared")
    rows = json.loads((recipe.parent / "study.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["plain", "smart-0.3", "rdrop-0.3", "smart-0.3-shared"]
    assert rows[0]["values"]["accuracy"] == {"1": 0.55, "2": 0.6}
    assert "| smart-0.3 | test | 2 | 57.50 ± 3.54 |" in capsys.readouterr().out


def test_strengths_become_options() -> None:
    assert variant("plain").options == () and variant("plain").name == "plain"
    for method, strength in STRENGTHS.items():
        made = variant(method, "0.2")
        assert made.method == method and made.name == f"{method}-0.2" and strength.option in made.options
        assert made.options[list(made.options).index(strength.option) + 1] == "0.2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "plain", "vat"], "--methods takes plain, r3f, rdrop"),
        (["--methods", "plain", "smart:a"], "--methods smart:a: values of --adv-eps must be numbers"),
        (["--methods", "plain", "r3f", "--shared", "smart"], "--shared smart is none of the regularised --methods"),
        (["--methods", "plain", "--shared", "plain"], "--shared plain is none"),
        (["--seeds", "1", "1"], "--seeds has a seed twice: 1 1"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    ],
)
def test_refusals(recipe: Path, capsys: Any, words: List[str], message: str) -> None:
    assert study(recipe, *words) == 2
    assert message in capsys.readouterr().err and not (recipe.parent / "runs").exists()


def test_a_missing_recipe_is_told(capsys: Any) -> None:
    assert (
        main(["study", "sentences", "away.sh --layers 3"]) == 2
        and "there is no recipe away.sh" in capsys.readouterr().err
    )
