"""One option at a time: which runs belong to which point of which panel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from fairseq_adv.report.logs import TrainingLog, read_log
from fairseq_adv.report.parameter_study import parameter_study, studies
from fairseq_adv.report.runs import Run
from tests.unit.report.fake_runs import write_run

DEFAULTS: Dict[str, Any] = {"cache_ema": 0.01, "cache_interval": 15.0, "cache_num_neighbors": 1, "cache_neighbors": "f"}


def run(name: str, seed: int, bleu: Optional[float] = None, criterion: str = "arch", **options: Any) -> Run:
    values = {"_name": f"{criterion}_label_smoothed", **(DEFAULTS if criterion == "arch" else {}), **options}
    log = TrainingLog(options={"criterion": values})
    log.validations = [{"num_updates": 1.0, "epoch": 1.0, "loss": 5.0, "nll_loss": 4.0 + seed / 10}]
    return Run(name, seed, Path(name), log, {} if bleu is None else {"bleu": bleu})


def test_each_option_alone_and_infinity_last() -> None:
    runs = [run("arch", seed, 20.0 + seed) for seed in (1, 2, 3)]
    runs += [run("arch-ema0", seed, 19.0, cache_ema=0.0) for seed in (1, 2)]
    runs += [run("arch-inf", 1, 18.0, cache_interval=math.inf), run("arch-tc5", 1, 18.5, cache_interval=5.0)]
    runs += [run("arch-both", 1, 1.0, cache_interval=5.0, cache_ema=0.0)]  # two options at once: in no panel
    found = {study.option: study for study in studies(runs)}
    assert list(found) == ["cache_ema", "cache_interval"]
    assert [(label, len(there)) for label, there in found["cache_ema"].points] == [("0", 2), ("0.01", 3)]
    assert [label for label, _ in found["cache_interval"].points] == ["5", "15", "inf"]


def test_a_start_that_is_text_is_a_number_and_auto_is_none() -> None:
    runs = [run("arch", 1, adv_start_update="0"), run("late", 1, adv_start_update="500")]
    runs += [run("late", 2, adv_start_update="500"), run("auto", 1, adv_start_update="auto:3")]
    (study,) = studies(runs)
    assert study.option == "adv_start_update"
    assert [(label, len(there)) for label, there in study.points] == [("0", 1), ("500", 2)]


def test_random_neighbours_are_a_point_beside_k() -> None:
    runs = [run("arch", 1), run("arch", 2), run("arch-k5", 1, cache_num_neighbors=5), run("r", 1, cache_neighbors="")]
    (study,) = studies(runs)
    assert [label for label, _ in study.points] == ["1", "5", "R-1"]


def test_bleu_and_nll_with_error_bars_and_the_line_of_smart() -> None:
    runs = [run("arch", seed, 20.0 + seed) for seed in (1, 2, 3)] + [run("arch-inf", 1, 18.0, cache_interval=math.inf)]
    runs += [run("smart", seed, 25.0, "smart") for seed in (1, 2)]
    figure = parameter_study(runs)
    assert figure is not None
    bleu, nll = figure.axes
    assert [axes.get_ylabel() for axes in (bleu, nll)] == ["BLEU", "validation nll"]
    points = bleu.containers[0]
    assert list(points[0].get_ydata()) == [22.0, 18.0]
    low, high = points[2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(21.0), pytest.approx(23.0))  # the sample deviation of 21, 22, 23 is 1
    assert 25.0 in [line.get_ydata()[0] for line in bleu.get_lines()]
    assert [text.get_text() for text in bleu.get_xticklabels()] == ["15", "inf"]


def test_nothing_to_study() -> None:
    assert parameter_study([run("arch", 1), run("arch", 2)]) is None


def test_infinite_options_are_numbers_in_a_log(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "arch", "arch")
    text = (folder / "train.log").read_text()
    (folder / "train.log").write_text(text.replace("'adv_eps': 0.1", "'adv_eps': 0.1, 'cache_interval': inf"))
    assert read_log(folder / "train.log").options["criterion"]["cache_interval"] == math.inf
