"""Reading fairseq's json logs: values, options, resumed runs, damage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fairseq_adv.report.logs import read_log
from fairseq_adv.report.runs import epoch_costs, load_run, load_runs
from tests.unit.report.fake_runs import CONFIG, epoch_lines, line, write_run

LOADED = "2026-01-01 11:00:00 | INFO | fairseq.trainer | Loaded checkpoint a/last.pt (epoch {} @ {} updates)"


def test_streams_lose_their_prefix_and_keep_their_numbers(tmp_path: Path) -> None:
    log = read_log(write_run(tmp_path / "run", "arch") / "train.log")
    assert [len(stream) for stream in (log.updates, log.epochs, log.validations)] == [6, 3, 3]
    assert log.updates[1] == {
        "epoch": 1, "num_updates": 20, "nll_loss": 7.2, "loss": 8.0, "gnorm": 1.2, "ups": 0.5, "adv_refresh": 1.0,
        "adv_norm_src": 0.1, "adv_norm_tgt": 0.05, "adv_loss": 1.0, "wall": 10.0, "update": 1.0,
    }  # fmt: skip
    assert log.validations[2]["nll_loss"] == 6.5 and log.validations[2]["bleu"] == 13.5
    assert log.series(log.validations, "nll_loss") == ([20, 40, 60], [7.0, 6.0, 6.5])
    assert log.series(log.validations, "absent") == ([], [])


def test_options_out_of_a_configuration_that_is_no_literal(tmp_path: Path) -> None:
    log = read_log(write_run(tmp_path / "run", "arch", seed=7, eps=0.25) / "train.log")
    assert log.options["common"]["seed"] == 7 and log.options["common"]["tensorboard_logdir"] is None
    assert log.options["criterion"] == {
        "_name": "arch_label_smoothed", "label_smoothing": 0.1, "adv_eps": 0.25, "adv_divergence": "sym-kl"
    }  # fmt: skip
    assert log.options["optimization"]["clip_norm"] == 1.0


def test_time_and_epochs_between_the_logged_points(tmp_path: Path) -> None:
    log = read_log(write_run(tmp_path / "run") / "train.log")
    assert log.wall_at(20) == 10 and log.wall_at(25) == 14.5 and log.wall_at(0) == 0
    assert log.epoch_at(30) == 1.5 and log.epoch_at(45) == 2.25


def test_resuming_repeats_nothing_and_keeps_one_clock(tmp_path: Path) -> None:
    """Killed after update 70, resumed from the checkpoint at 40, where fairseq's own clock starts again at 0."""
    lost = line("train_inner", 4, {"num_updates": 70, "nll_loss": 99, "wall": 36, "update": 3.5, "ups": 2})
    first = [line for epoch in (1, 2, 3) for line in epoch_lines(epoch, 7 - epoch, 10 * epoch, None)]
    again = [line for epoch in (3, 4) for line in epoch_lines(epoch, 5 - epoch, 10 * (epoch - 2), None)]
    path = tmp_path / "train.log"
    config = CONFIG % (1, "x", 0)
    path.write_text(
        "\n".join(
            [config, *first, lost, '… | INFO | train_inner | {"epoch": 4, "num_', config, LOADED.format(3, 40), *again]
        )
    )
    log = read_log(path)
    assert [r["num_updates"] for r in log.updates] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert [r["nll_loss"] for r in log.epochs] == [6, 5, 2, 1]
    assert [r["wall"] for r in log.epochs] == [10, 20, 30, 40]
    assert len(log.validations) == 4


def test_a_log_started_afresh_forgets_the_old_training(tmp_path: Path) -> None:
    fresh = "2026-01-01 11:00:00 | INFO | fairseq.trainer | No existing checkpoint found a/last.pt"
    path = tmp_path / "train.log"
    path.write_text("\n".join([*epoch_lines(1, 9, 10, None), fresh, *epoch_lines(1, 8, 30, None)]))
    log = read_log(path)
    assert [(r["nll_loss"], r["wall"]) for r in log.epochs] == [(8, 30)]


def test_without_records_it_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("epoch 1 | loss 3\n")
    with pytest.raises(ValueError, match="--log-format json"):
        read_log(tmp_path / "train.log")
    with pytest.raises(FileNotFoundError, match=r"a run is a folder with the train.log or hydra_train.log"):
        load_run(str(tmp_path / "absent"))


def test_run_facts(tmp_path: Path) -> None:
    run = load_run(str(write_run(tmp_path / "x", "arch", seed=3, score={"bleu": 11.5})))
    assert (run.method, run.seed, run.score["bleu"], run.wall_seconds) == ("arch", 3, 11.5, 30)
    assert run.best_validation is not None and run.best_validation["epoch"] == 2
    assert load_run(str(write_run(tmp_path / "y"))).method == "plain"
    assert load_run(f"mine={tmp_path / 'y'}").method == "mine"
    (tmp_path / "y/run.json").write_text('{"method": "told", "seed": 9}')
    assert load_run(str(tmp_path / "y")).name == "told (seed 9)"


def as_hydra_logs(folder: Path) -> Path:
    """The log of *folder* as fairseq-hydra-train writes it."""
    text = (folder / "train.log").read_text()
    text = re.sub(r"^([\d: -]+) \| INFO \| ([\w.]+) \| ", r"[\1,123][\2][INFO] - ", text, flags=re.MULTILINE)
    (folder / "hydra_train.log").write_text(text)
    (folder / "train.log").unlink()
    return folder


def test_hydra_logs_say_the_same(tmp_path: Path) -> None:
    plain = load_run(str(write_run(tmp_path / "x", "arch", seed=3)))
    folder = as_hydra_logs(write_run(tmp_path / "common.seed=3,method=arch", "arch", seed=3))
    for argument in (folder, folder / "hydra_train.log"):
        run = load_run(str(argument))
        assert run.log == plain.log and run.name == "arch (seed 3)" and run.folder == folder
    assert load_run(f"mine={folder}").method == "mine"
    assert load_run(f"eps=0.1={tmp_path / 'x'}").method == "eps=0.1"


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "x", "arch", eps=0.1)
    with pytest.raises(ValueError, match="given twice"):
        load_runs([str(one), str(one)])
    assert len(load_runs([str(one), str(write_run(tmp_path / "y", "arch", eps=0.3))])) == 2


def test_cost_of_epochs_by_kind(tmp_path: Path) -> None:
    costs = epoch_costs(load_run(str(write_run(tmp_path / "x", "arch"))).log)
    assert [(c.epoch, c.seconds_per_update, c.updates, c.refresh) for c in costs] == [
        (1, 2.0, 20, True), (2, 1.0, 20, False), (3, 2.0, 20, True)
    ]  # fmt: skip
    plain = epoch_costs(load_run(str(write_run(tmp_path / "y"))).log)
    assert {(c.seconds_per_update, c.refresh) for c in plain} == {(0.5, None)}
