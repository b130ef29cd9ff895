"""The shell code of the recipes for sentences: clean by shellcheck where it is installed, clear about wrong options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Dict, List

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY

import fairseq_adv

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "examples/sentence_prediction"
RECIPES = sorted(path for path in FOLDER.glob("*.sh") if path.name != "recipe.sh")


def test_the_sets_have_a_recipe_each() -> None:
    assert [path.stem for path in RECIPES] == ["anli", "glue", "movie", "stsb"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    names = [str(path.relative_to(ROOT)) for path in FOLDER.glob("*.sh")]
    done = subprocess.run(["shellcheck", "-x", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "train needs a METHOD"),
        (["train", "plain", "one"], "SEED must be a number, got one"),
        (["cook"], "unknown step cook"),
        (["baselines", "twice"], "baselines takes nothing after it, got twice"),
        (["prepare", "--layers"], "--layers needs a value"),
        (["prepare", "--layers", "0"], "--layers must be a positive number, got 0"),
        (["prepare", "--train-rows", "1k"], "--train-rows must be a positive number, got 1k"),
        (["prepare", "--set", "sst2"], "--set must be one of movie movie-rating, got sst2"),
        (["prepare", "--encoder", "bert-base"], "--encoder must be hf:NAME_OR_PATH, got bert-base"),
        (["all", "--lr", "high"], "--lr must be a number such as 1e-4, got high"),
        (["all", "--methods", "Plain"], "--methods must be a comma list such as plain,arch, got Plain"),
        (["all", "--fast"], "unknown option --fast"),
        ([], "bash examples/sentence_prediction/movie.sh"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(tmp_path: Path, arguments: List[str], message: str) -> None:
    command = ["bash", str(FOLDER / "movie.sh"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())


def options_of(name: str, folder: Path) -> Dict[str, Dict[str, str]]:
    """METHOD -> option -> value as the recipe *name* sets them; a copy in *folder* prints them in place of its step."""
    shutil.copytree(FOLDER.parent, folder / "examples")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    recipe = folder / "examples/sentence_prediction" / name
    text = recipe.read_text(encoding="utf-8")
    shown = 'for method in "${!options_of[@]}"; do echo "$method ${options_of[$method]}"; done\n'
    recipe.write_text(text[: text.index("sentence_recipe ")] + shown)
    done = subprocess.run(["bash", str(recipe)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {method: dict(zip(words[::2], words[1::2])) for method, *words in lines}


@pytest.mark.parametrize("name", ["movie.sh", "stsb.sh"])
def test_no_method_has_a_radius_that_turns_every_third_label(name: str, tmp_path: Path) -> None:
    fairseq_adv.register()
    radii, given = {}, options_of(name, tmp_path)
    for criterion, options in CRITERION_DATACLASS_REGISTRY.items():
        method = criterion.partition("_sentence_prediction")[0]
        for option in ("adv_eps", "vat_eps", "scala_radius", "disadv_alpha", "conadv_alpha"):
            if criterion.endswith("_sentence_prediction") and hasattr(options, option):
                value = given.get(method, {}).get(f"--{option.replace('_', '-')}", getattr(options, option))
                radii[method, option] = float(value)
    assert {method for method, _ in radii} >= {"arch", "smart", "freelb", "freeat", "vat", "scala", "disadv"}
    assert all(0 < radius <= 0.1 for radius in radii.values()), radii
    assert given["arch"]["--cache-interval"] == "inf" and given["r3f"] == {"--r3f-sigma": "0.01"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_help_tells_of_the_set_and_of_the_steps(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(path), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and f"bash examples/sentence_prediction/{path.name} " in done.stdout
    assert path.read_text(encoding="utf-8").splitlines()[1][2:] in done.stdout
    assert "evaluate [METHOD] [SEED]" in done.stdout and "set -euo" not in done.stdout
