"""Recipes, hydra files and presets have the papers' values."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Dict

import pytest

from fairseq_adv.papers.values import DIRECTIONS, IWSLT_EPOCHS, METHOD_VALUES, TRAINING, Direction

ROOT = Path(__file__).resolve().parents[3]
RECIPES = ROOT / "examples/translation"
IDS = [f"{d.name} {d.corpus}" for d in DIRECTIONS]


def recipe_settings(direction: Direction) -> Dict[str, str]:
    """What a recipe sets for one direction, by its own code up to the first step: variables and options of training."""
    text = (RECIPES / f"{direction.recipe}.sh").read_text()
    text = re.sub(r'^\. "\$\(dirname.*$', f'. "{RECIPES}/recipe.sh"', text, flags=re.MULTILINE)
    text = re.sub(r'^recipe "\$@"; exit.*$', "", text, flags=re.MULTILINE)
    text += 'parse "$@"\nfor name in beam lenpen epochs batch_tokens; do echo "$name=${!name}"; done\n'
    text += 'printf "%s\\n" "${train_options[@]}"\n'
    words = ["--reverse"] if direction.reverse else []
    told = subprocess.run(["bash", "-c", text, "recipe", *words], capture_output=True, text=True, check=True).stdout
    lines = told.splitlines()
    options = dict(line.split("=", 1) for line in lines[:4])
    for place, word in enumerate(lines[4:], 4):
        if word.startswith("--"):
            options[word] = lines[place + 1] if place + 1 < len(lines) else ""
    return options


@pytest.mark.parametrize("direction", DIRECTIONS, ids=IDS)
def test_a_recipe_has_the_papers_values(direction: Direction) -> None:
    found = recipe_settings(direction)
    assert (int(found["beam"]), float(found["lenpen"])) == (direction.beam, direction.lenpen)
    assert found["batch_tokens"] == direction.batch_tokens
    assert found["--arch"] == direction.model
    assert {name: found[name] for name in TRAINING} == TRAINING
    if direction.corpus.startswith("IWSLT"):
        assert int(found["epochs"]) == IWSLT_EPOCHS
        assert found["--best-checkpoint-metric"] == "bleu" and "--maximize-best-checkpoint-metric" in found


def test_a_search_of_ones_own_wins_in_both_directions() -> None:
    text = f'. "{RECIPES}/recipe.sh"\nbeam=9 lenpen=1.5 reverse_beam=10 reverse_lenpen=2.0\n'
    text += 'parse "$@"\necho "$beam $lenpen"\n'

    def search(*words: str) -> str:
        return subprocess.run(["bash", "-c", text, "x", *words], capture_output=True, text=True, check=True).stdout

    assert search() == "9 1.5\n" and search("--reverse") == "10 2.0\n"
    assert search("--beam", "3", "--reverse", "--lenpen", "1") == "3 1\n"


@pytest.mark.parametrize("direction", [d for d in DIRECTIONS if not d.reverse], ids=lambda d: d.recipe)
def test_hydra_files_validate_with_the_papers_search(direction: Direction) -> None:
    text = (RECIPES / f"config/{direction.recipe}.yaml").read_text()
    assert f'"beam": {direction.beam}, "lenpen": {direction.lenpen},' in text
    reverse = [d for d in DIRECTIONS if d.recipe == direction.recipe and d.reverse]
    for other in reverse:
        assert f'other direction "beam": {other.beam}, "lenpen": {other.lenpen}' in text


def test_presets_are_the_table_of_values() -> None:
    from fairseq_adv.criterions.frame.presets import PRESETS

    said = {value.field: value.paper for value in METHOD_VALUES}
    assert all(PRESETS["paper"][name] == said[name] for name in PRESETS["paper"])
    released = {value.field: value.release for value in METHOD_VALUES if value.release is not None}
    assert PRESETS["release"] == released


def test_defaults_of_arch_are_the_papers() -> None:
    import fairseq_adv

    fairseq_adv.register()
    from fairseq_adv.criterions.arch import ArchConfig
    from fairseq_adv.criterions.frame.config import step_size_of

    defaults = ArchConfig()
    for value in METHOD_VALUES:
        default = step_size_of(defaults) if value.field == "adv_step_size" else getattr(defaults, value.field)
        assert (str(default) if isinstance(value.paper, str) else default) == value.paper, value.field


@pytest.mark.parametrize("preset", ["paper", "release"])
@pytest.mark.parametrize("method", ["arch", "smart"])
def test_a_preset_gives_the_method_its_values(method: str, preset: str) -> None:
    from tests.unit.criterions.updates import make_criterion

    cfg = make_criterion(f"{method}_label_smoothed", adv_preset=preset).cfg
    for value in METHOD_VALUES:
        wanted = value.release if preset == "release" and value.release is not None else value.paper
        if hasattr(cfg, value.field) and (preset == "paper" or value.release is not None):
            got = getattr(cfg, value.field)
            assert (str(got) if isinstance(wanted, str) else got) == wanted, value.field
