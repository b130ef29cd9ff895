"""The grid's options, order and commands, on a folder without data and on a recipe that only takes notes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from fairseq_adv.cli.fields import from_arguments
from fairseq_adv.cli.main import main, parse
from fairseq_adv.experiments.commands import TRAIN_SMALL
from fairseq_adv.experiments.grid import UNLIMITED, Grid, runs_of
from fairseq_adv.experiments.grid_corpora import Corpus, parse_variant

ROOT = Path(__file__).resolve().parents[3]

RECIPE = """#!/usr/bin/env bash
here=$(dirname "$0")
echo "$*" >>"$here/notes"
case " $* " in
  *" folder "*) echo "$here/runs/${*: -2:1}-seed${*: -1}" ;;
esac
"""


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    for name in ("bin", "raw"):
        (tmp_path / "en-de-9" / name).mkdir(parents=True)
    (tmp_path / "en-de-9/neighbors-seed1.safetensors").touch()
    return tmp_path / "en-de-9"


def parsed(*words: object) -> Tuple[Grid, List[Corpus]]:
    args = parse(["grid", *map(str, words)])
    grid = from_arguments(Grid, args)
    return grid, [grid.corpus(text, args.rest) for text in grid.corpora]


def test_variants_have_names_methods_and_options() -> None:
    assert parse_variant("rdrop") == ("rdrop", "rdrop", [])
    assert parse_variant("arch-1=arch  --adv-eps 1 --cache-neighbors 'a b-{seed}'")[:2] == ("arch-1", "arch")
    variant = parse_variant("x=arch --cache-neighbors 'a b-{seed}'")
    assert variant.for_seed(7) == ["--cache-neighbors", "a b-7"]


def test_whole_seeds_come_first_and_arch_gets_its_neighbors(prepared: Path) -> None:
    grid, corpora = parsed(
        prepared, "--variants", "plain", "a=arch --adv-eps 1", "--seeds", 3, 1, "--epochs", 4, "--", "--lr", 1
    )
    (corpus,) = corpora
    folders = [run.folder.name for run in runs_of(corpus, grid.parsed, grid.seeds)]
    assert folders == ["plain-seed3", "a-seed3", "plain-seed1", "a-seed1"]
    commands = corpus.commands(grid.parsed[1], 1)
    train = [str(word) for word in next(commands)]
    run = prepared / "runs-epochs4/a-seed1"
    assert train[1:5] == [str(TRAIN_SMALL), str(prepared / "bin"), str(run), "arch"]
    options = ["--lr", "1", "--adv-eps", "1", "--cache-neighbors", str(prepared / "neighbors-seed1.safetensors")]
    assert train[5:] == ["--name", "a", "--epochs", "4", "--seed", "1", "--", *options]
    run.mkdir(parents=True)
    (run / "done").touch()
    assert list(next(commands))[3:5] == ["evaluate", prepared / "bin"]
    (run / "score.json").touch()
    assert len(list(corpus.commands(grid.parsed[1], 1))) == 1, "what is scored is not scored again"
    os.utime(run / "score.json", (1, 1))
    assert len(list(corpus.commands(grid.parsed[1], 1))) == 2, "a score older than the training counts for nothing"


def test_a_budget_in_minutes_ends_each_run_by_the_clock(prepared: Path) -> None:
    grid, (corpus,) = parsed(prepared, "--variants", "plain", "--minutes", 1.5, "--", "--lr", 1)
    train = [str(word) for word in next(corpus.commands(grid.parsed[0], 1))]
    assert train[3] == str(prepared / "runs-minutes1.5/plain-seed1")
    assert train[train.index("--epochs") + 1] == str(UNLIMITED)
    assert train[train.index("--") + 1 :] == ["--lr", "1", "--stop-time-hours", "0.025"]
    assert grid.epochs is None, "the progress names no last epoch"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--variants", "arch --adv-eps 1"], "has options: give it a name of its own, such as arch-2=arch"),
        (["--variants", "Arch"], "write METHOD or NAME=METHOD OPTIONS"),
        (["--variants", "arch", "arch=rdrop"], "--variants has arch twice"),
        (["--variants", "arch", "--seeds", "1", "1"], "--seeds has a seed twice: 1 1"),
        (["--variants", "arch", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--variants", "arch", "--jobs", "3", "--devices", "0", "1"], "--jobs 3 is more than the 2 --devices"),
        (["--variants", "arch", "--baseline", "plain"], "--baseline plain is none of the variants: arch"),
        (["bin", "--variants", "arch"], "bin has no bin/: prepare it with scripts/quickstart.sh --prepare-only"),
        (["away.sh --reverse", "--variants", "arch"], "there is no recipe away.sh"),
        (["bin", "--variants", "arch", "--output", "x"], "--output takes one corpus"),
        (
            ["bin", "--variants", "arch", "--minutes", "0"],
            "--minutes must be a positive number, without --epochs, got 0",
        ),
        (
            ["bin", "--variants", "arch", "--minutes", "1", "--epochs", "2"],
            "--minutes must be a positive number, without",
        ),
    ],
)
def test_refusals(prepared: Path, capsys: pytest.CaptureFixture, words: List[str], message: str) -> None:
    assert main(["grid", str(prepared), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_neighbor_file_is_told_before_any_training(prepared: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["grid", str(prepared), "--variants", "plain", "arch", "--seeds", "1", "2"]) == 2
    assert "no neighbor file for seed 2, which arch needs" in capsys.readouterr().err
    assert not (prepared / "runs-epochs60").exists()


def test_recipes_are_prepared_once_and_asked_for_their_folders(tmp_path: Path, capsys: Any) -> None:
    script = tmp_path / "iwslt.sh"
    script.write_text(RECIPE)
    variants = ["plain", "a=arch --adv-eps 1"]
    status = main(
        ["grid", f"{script} --reverse", "--variants", *variants, "--seeds", "5", "--epochs", "3", "--", "--lr", "1"]
    )
    assert status == 0, capsys.readouterr().err
    notes = [line for line in (tmp_path / "notes").read_text().splitlines() if " folder " not in line]
    common = "--reverse --epochs 3"
    assert notes == [
        f"{common} prepare",
        f"{common} neighbors 5",
        f"{common} --name plain train plain 5 -- --lr 1",
        f"{common} evaluate plain 5",
        f"{common} --name a train arch 5 -- --lr 1 --adv-eps 1",
        f"{common} evaluate a 5",
    ]


def test_a_recipe_tells_where_its_runs_are(tmp_path: Path) -> None:
    recipe = ROOT / "examples/translation/iwslt14-de-en.sh"
    command = ["bash", str(recipe), "--work-dir", str(tmp_path), "--reverse", "folder"]
    outputs = [
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout.strip()
        for more in ([], ["arch-2", "4"])
    ]
    assert outputs[0].startswith(str(tmp_path)) and outputs[0].endswith("/runs/en-de")
    assert outputs[1] == f"{outputs[0]}/arch-2-seed4"
