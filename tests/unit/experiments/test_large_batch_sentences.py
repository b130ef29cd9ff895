"""The study of large batches of sentences, on a recipe that makes up its logs: rates, targets and times."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY

import fairseq_adv
from fairseq_adv.cli.main import main
from fairseq_adv.experiments.large_batch_sentences import OPTIONS, LargeBatchSentences, Setting, chosen, grid
from fairseq_adv.experiments.large_batch_sentences_results import Found, publish

pytest.importorskip("matplotlib")
fairseq_adv.register()  # by hand: fairseq may have been imported after the package

# The validation set is 64 rows, its accuracy that of a formula: better with every update, best at a rate of 2e-4.
RECIPE = """#!/usr/bin/env bash
here=$(cd "$(dirname "$0")" && pwd)
while [[ $1 == --* ]]; do case $1 in --name) name=$2 ;; --batch) batch=$2 ;; --lr) lr=$2 ;; esac; shift 2; done
case $1 in
  folder) if [ $# -eq 1 ]; then echo "$here/runs"; else echo "$here/runs/$2-seed$3"; fi ;;
  train) if [ -f "$here/runs/$name-seed$3/done" ]; then exit; fi; echo "$name $3 $*" >>"$here/notes"
    python "$here/run.py" "$2" "$3" "$here/runs/$name-seed$3" "$batch" "$lr" ;;
esac
"""
RUN = """import json, pathlib, sys
method, seed, folder, batch, lr = (kind(word) for kind, word in zip((str, int, pathlib.Path, int, str), sys.argv[1:]))
folder.mkdir(parents=True, exist_ok=True)
gain = {"2e-4": 30, "1e-3": 25}.get(lr, 10) + (2 if method == "scala" else 0) + seed
with (folder / "train.log").open("w") as log:
    print("D | INFO | fairseq_cli.train | {'_name': None, 'checkpoint': {'_name': None, "
          "'best_checkpoint_metric': 'accuracy', 'maximize_best_checkpoint_metric': True}}", file=log)
    for epoch in (1, 2):
        updates = 64 // batch * epoch
        told = {"train": {"num_updates": updates, "wall": updates * 10}, "valid": {
            "num_updates": updates, "accuracy": 50 + gain * epoch / 2}}
        for tag, record in told.items():
            named = {f"{tag}_{key}": str(value) for key, value in record.items()}
            print(f"D | INFO | {tag} | {json.dumps({'epoch': epoch, **named})}", file=log)
(folder / "score.json").write_text(json.dumps({"metrics": ["accuracy"], "subsets": {
    "valid": {"accuracy": (50 + gain) / 100}, "test": {"accuracy": (40 + gain) / 100}}}))
(folder / "run.json").write_text(json.dumps({"method": folder.name, "seed": seed}))
(folder / "cpu-seconds").write_text("7 1\\n")
(folder / "done").touch()
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "made_up.sh").write_text(RECIPE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/set.json").write_text(json.dumps({"rows": {"train": 64}}))
    return tmp_path / "made_up.sh"


def study(recipe: Path, *words: str) -> int:
    small = ["--batches", "8", "32", "--seeds", "1", "2", "--epochs", "2", "--rates", "1e-4", "2e-4"]
    return main(["study", "large-batch-sentences", f"{recipe} --layers 1", *small, "--lamb-rates", "1e-3", *words])


def runs_of(recipe: Path) -> List[Dict[str, Any]]:
    return json.loads((recipe.parent / "large-batch.json").read_text())["runs"]


def test_rates_are_chosen_on_the_first_seed_and_time_ends_when_the_target_is_reached(recipe: Path, capsys: Any) -> None:
    assert study(recipe, "--methods", "plain", "lamb", "scala") == 0
    notes = [line.split()[:2] for line in (recipe.parent / "notes").read_text().splitlines()]
    assert {name for name, seed in notes if seed == "2"} == {
        f"{method}-batch{batch}-lr{rate}-epochs2"
        for method, rate in (("plain", "2e-4"), ("lamb", "1e-3"), ("scala", "2e-4"))
        for batch in (8, 32)
    }
    rows = {(row["method"], row["batch"], row["seed"]): row for row in runs_of(recipe)}
    # the target is 50 + 30 + mean(1, 2): plain's second seed, and both of scala, are there at the end of epoch 2
    assert {key: row["updates"] for key, row in rows.items() if row["updates"] is not None} == {
        ("plain", 8, 2): 16, ("plain", 32, 2): 4, ("scala", 8, 1): 16, ("scala", 8, 2): 16, ("scala", 32, 1): 4,
        ("scala", 32, 2): 4,
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "Target: 81.50 on the validation set, plain at the smallest batch." in shown
    assert "| 32 | scala | 2e-4 | 2 | 83.50 ± 0.71 | 73.50 ± 0.71 | 2/2 | 4 | 40 | 4.00 × |" in shown
    assert "| 8 | lamb | 1e-3 | 2 | 76.50 ± 0.71 | 66.50 ± 0.71 | 0/2 | – | – | – |" in shown
    assert (recipe.parent / "large-batch.png").stat().st_size > 1000


def test_with_a_slack_and_the_clock_of_the_cpu(recipe: Path, capsys: Any) -> None:
    assert study(recipe, "--methods", "plain", "--clock", "cpu", "--slack", "20") == 0
    shown = capsys.readouterr().out
    assert "Target: 61.50 on the validation set, 20 below plain at the smallest batch." in shown
    assert "| 32 | plain | 2e-4 | 2 | 81.50 ± 0.71 | 71.50 ± 0.71 | 2/2 | 2 | 4 | 1.00 × |" in shown  # half of 8 s


def test_a_method_may_have_batches_of_its_own(recipe: Path) -> None:
    args = LargeBatchSentences(
        recipe=str(recipe), methods=["plain:64,8", "lamb:64", "scala"], batches=(16,), rates=("1",)
    )
    assert [(each.batch, each.method) for each in grid(args)] == [
        (8, "plain"), (16, "scala"), (64, "plain"), *[(64, "lamb")] * 4
    ]  # fmt: skip


def test_nothing_is_trained_again(recipe: Path) -> None:
    for _ in range(2):
        assert study(recipe, "--methods", "plain") == 0
    notes = (recipe.parent / "notes").read_text().splitlines()
    assert len(notes) == len(set(notes)) == 6


def test_settings_become_options_of_the_recipe(recipe: Path) -> None:
    args = LargeBatchSentences(recipe=str(recipe), radius=0.3, sigma=0.02, validations=4)
    made = {m: Setting(m, 128, "1e-4").variant(args, rows=1000).options for m in OPTIONS}
    assert all(options[-2:] == ["--validate-interval-updates", "2"] for options in made.values())  # of 8 in an epoch
    assert made["scala"][:-2] == ["--scala-radius", "0.3", "--scala-step-size", "0.3"]
    assert made["r3f"][:-2] == ["--r3f-sigma", "0.02"] and made["disadv"][:-2] == ["--disadv-alpha", "0.3"]
    assert Setting("lamb", 128, "1e-3").variant(args, 1000).method == "plain"
    words = Setting("plain", 128, "1e-4").recipe(args).options
    assert words[-6:] == ["--batch", "128", "--lr", "1e-4", "--epochs", "4"]


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_the_options_are_those_of_the_criterion_and_of_the_optimizer(method: str) -> None:
    known = {"--optimizer"} if method == "lamb" else set()
    for registry, name in (
        (CRITERION_DATACLASS_REGISTRY, f"{method}_sentence_prediction"),
        (OPTIMIZER_DATACLASS_REGISTRY, f"adv_{method}"),
    ):
        known |= (
            {f"--{field.name.replace('_', '-')}" for field in fields(registry[name])} if name in registry else set()
        )
    assert {word for word in OPTIONS[method] if word.startswith("--")} <= known


def test_a_rate_that_diverged_is_not_chosen() -> None:
    scores: List[Tuple[str, float]] = [("1e-4", 0.6), ("2e-4", 0.7), ("4e-4", math.nan)]
    settings = {Setting("plain", 8, rate): {"accuracy": value} for rate, value in scores}
    assert chosen(list(settings), settings) == [Setting("plain", 8, "2e-4")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "lamb"], "--methods must have plain at the smallest batch"),
        (["--methods", "plain:32", "scala"], "--methods must have plain at the smallest batch"),
        (["--methods", "plain", "scala:big"], "or with batches METHOD:BATCH,BATCH; got 'scala:big'"),
        (["--batches", "0"], "--batches must be at least 1, got 0"),
        (["--validations", "0"], "--validations must be at least 1, got 0"),
        (["--slack", "-1"], "--slack must be finite and at least 0, got -1.0"),
    ],
)
def test_refusals(recipe: Path, capsys: Any, words: List[str], message: str) -> None:
    assert study(recipe, *words) == 2
    assert message in capsys.readouterr().err and not (recipe.parent / "runs").exists()


def test_a_run_without_a_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run at"):
        publish([Found("plain", 8, "1e-4", 1, tmp_path)], tmp_path / "out")
