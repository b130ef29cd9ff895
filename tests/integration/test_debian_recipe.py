"""A recipe on package descriptions, from the indexes of an archive to a score, without network."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Dict

import pytest

from tests.integration.test_recipes import Recipe
from tests.integration.ui_strings import PLACES, THINGS, VERBS

ENGLISH, GERMAN = 0, 1


def write_indexes(folder: Path) -> None:
    """An archive of a hundred packages, two of each source, with seven sentences each."""
    text = [
        tuple(f"{verb[side]} {thing[side]} {place[side]}" for side in (ENGLISH, GERMAN))
        for verb, thing, place in itertools.product(VERBS, THINGS, PLACES)
    ]
    assert len(text) >= 700
    indexes: Dict[str, str] = {"Translation-en": "", "Translation-de": "", "Packages": ""}
    for number in range(100):
        pairs = text[number::100][:7]
        english, german = ("\n .\n ".join(pair[side] for pair in pairs) for side in (ENGLISH, GERMAN))
        checksum = hashlib.md5(english.encode()).hexdigest()
        head = f"Package: house{number}\nDescription-md5: {checksum}\n"
        indexes["Translation-en"] += f"{head}Description-en: {english}\n\n"
        indexes["Translation-de"] += f"{head}Description-de: {german}\n\n"
        indexes["Packages"] += f"Package: house{number}\nSource: houses{number // 2}\n\n"
    folder.mkdir()
    for name, content in indexes.items():
        (folder / name).write_text(content, encoding="utf-8")


def times(folder: Path) -> Dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_from_indexes_to_a_score_and_again_without_repeating_a_step(tmp_path: Path) -> None:
    write_indexes(tmp_path / "mirror")
    recipe = Recipe(tmp_path, "debian-de-en")
    options = ("--held-out", "40", "--pairs", "200", "--methods", "plain")
    output = recipe.check(*options, "all")
    assert output.count("\nBLEU = ") == 1
    base = tmp_path / "debian-de-en-200-held-out-40"
    score = json.loads((base / "sentencepiece-300/runs/de-en/plain-seed1/score.json").read_text())
    assert score["sentences"] == 40 and "valid_bleu_by_lenpen" in score  # the length penalty is chosen
    assert json.loads((base / "plain/corpus.json").read_text())["subsets"]["train"] == 200
    before = times(base)
    recipe.check(*options, "prepare")
    recipe.check(*options, "train", "plain")
    assert times(base) == before


def test_a_missing_language_is_named(tmp_path: Path) -> None:
    write_indexes(tmp_path / "mirror")
    done = Recipe(tmp_path, "debian-fr-en").run("prepare")
    assert done.returncode != 0 and "no package descriptions in 'fr'; it has de, en" in done.stderr
