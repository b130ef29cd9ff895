"""The study of large batches: its grid and options, kill-safe runs, and its table, without any training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Dict, List

import pytest

from fairseq_adv.cli.fields import from_arguments
from fairseq_adv.cli.main import parse
from fairseq_adv.experiments import large_batch as study
from fairseq_adv.experiments import large_batch_results as results


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path


def options(work: Path, *words: str) -> study.LargeBatchStudy:
    return from_arguments(study.LargeBatchStudy, parse(["study", "large-batch", "--work-dir", str(work), *words]))


def value(words: List[str], option: str) -> str:
    return words[len(words) - words[::-1].index(option)]


def test_grid_goes_seed_by_seed_and_takes_batches_of_a_method_alone(work: Path) -> None:
    args = options(work, "--methods", "plain", "scala:16", "--factors", "1", "4", "--seeds", "1", "2")
    expected = [("plain", 1), ("plain", 4), ("scala", 16)]
    assert study.settings(args) == [(*cell, seed) for seed in (1, 2) for cell in expected]


def test_warm_up_lasts_as_many_epochs_and_micro_batches_stay_below_the_target(work: Path) -> None:
    args = options(work, "--base-tokens", "256", "--warmup-updates", "248")
    for factor, micro_batch in ((1, "256"), (4, "1024"), (16, "1024")):
        words = study.Setting("plain", factor, 1).options(args)
        assert value(words, "--target-batch-tokens") == str(256 * factor)
        assert value(words, "--max-tokens") == micro_batch
        assert int(value(words, "--lr-warmup-updates")) * factor == pytest.approx(248, abs=factor / 2)
        assert value(words, "--lr-base-batch-tokens") == "256"


def test_radius_reaches_every_method_and_lamb_its_own_rate(work: Path) -> None:
    args = options(work, "--radius", "0.7", "--lamb-lr", "0.05")
    chosen = {method: study.Setting(method, 4, 1).options(args) for method in study.METHODS}
    assert {option: value(chosen[method], option) for method in chosen for option in chosen[method] if
            option.endswith(("-radius", "-alpha", "-step-size"))} == {
        "--scala-radius": "0.7", "--scala-step-size": "0.7", "--disadv-alpha": "0.7", "--conadv-alpha": "0.7"
    }  # fmt: skip
    assert value(chosen["lamb"], "--optimizer") == "adv_lamb" and value(chosen["lamb"], "--lr") == "0.05"
    args = options(work)
    own = {method: study.Setting(method, 4, 1).options(args) for method in study.METHODS}
    assert value(own["scala"], "--scala-radius") == "1.0" and value(own["disadv"], "--disadv-alpha") == "0.1"
    assert "--optimizer" not in chosen["plain"] and value(chosen["plain"], "--lr") == "0.003"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--methods", "arch"],
            "takes plain, scala, disadv, conadv, lamb, or with batches METHOD:FACTOR,FACTOR; got 'arch'",
        ),
        (["--methods", "scala:big"], "METHOD:FACTOR,FACTOR; got 'scala:big'"),
        (["--factors", "0"], "--factors must be at least 1, got 0"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    ],
)
def test_refusals(work: Path, arguments: List[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        options(work, *arguments)


def fake_run(folder: Path, bleu: float, train: float, valid: float, updates: int) -> Path:
    """A run as training, scoring and validation leave it."""
    folder.mkdir()
    lines: Dict[str, Dict[str, str]] = {
        "train": {"train_num_updates": str(updates), "train_wall": "120", "train_batch_tokens": "250"},
        "valid": {"valid_loss": "6", "valid_nll_loss": "4.5", "valid_num_updates": str(updates)},
    }
    log = "".join(f"D | INFO | {tag} | {json.dumps({'epoch': 1, **line})}\n" for tag, line in lines.items())
    (folder / "train.log").write_text(log)
    (folder / "score.json").write_text(json.dumps({"bleu": bleu, "bleu_signature": "s"}))
    losses = "".join(
        f'D | INFO | {name} | {{"{name}_loss": "9", "{name}_nll_loss": "{nll}"}}\n'
        for name, nll in (("train", train), ("valid", valid))
    )
    (folder / "losses.log").write_text(losses)
    (folder / "done").touch()
    return folder


def test_table_shows_the_gap_the_spread_and_leaves_out_what_is_unfinished(tmp_path: Path) -> None:
    found = [
        ("plain", 4, 1, fake_run(tmp_path / "a", 10.0, 3.0, 5.0, 40)),
        ("plain", 4, 2, fake_run(tmp_path / "b", 12.0, 3.5, 5.1, 40)),
        ("scala", 16, 1, fake_run(tmp_path / "c", 9.0, 4.0, 4.5, 10)),
        ("plain", 1, 1, fake_run(tmp_path / "d", 15.0, 2.0, 5.5, 160)),
        ("plain", 1, 2, fake_run(tmp_path / "e", 99.0, 2.0, 5.5, 160)),
        ("plain", 16, 1, tmp_path / "not begun"),
    ]
    (tmp_path / "e/losses.log").rename(tmp_path / "e/losses.log.partial")
    table = results.publish(found, 1000, tmp_path).splitlines()
    assert [line.split(" | ")[0:3] for line in table[2:]] == [
        ["| ×1 (1,000)", "plain", "1"], ["| ×4 (4,000)", "plain", "1,2"], ["| ×16 (16,000)", "scala", "1"]
    ]  # fmt: skip
    cells = table[3].split(" | ")
    assert cells[3:8] == ["11.00 ± 1.41", "5.050 ± 0.071", "3.250 ± 0.354", "1.800 ± 0.283", "4.500"]
    assert cells[8:] == ["40", "250", "2.0 |"]
    assert (tmp_path / "study.md").read_text().splitlines() == table
    runs = json.loads((tmp_path / "study.json").read_text())["runs"]
    assert [run["done"] for run in runs] == [True] * 4 + [False] * 2
    assert (tmp_path / "study.png").stat().st_size > 1000
