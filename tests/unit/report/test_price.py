"""Where a method stands at the baseline's time, and when it reaches the baseline's best."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Sequence

from fairseq_adv.report.price import pairs_of_seeds, seconds_to_best, value_at_time
from fairseq_adv.report.runs import Run, load_run
from fairseq_adv.report.table import result_rows, to_json, to_text
from tests.unit.report.fake_runs import write_run

CHOICE = "'checkpoint': {'_name': None, 'best_checkpoint_metric': 'bleu', 'maximize_best_checkpoint_metric': True}, "


def run(folder: Path, method: str, seed: int, bleus: Sequence[float], seconds: float, by_bleu: bool = True) -> Run:
    """A run whose validations have *bleus*, one every *seconds*; the fake log's BLEU is 20 less the nll."""
    path = write_run(folder, method, seed, tuple(20 - bleu for bleu in bleus), seconds)
    log = path / "train.log"
    if by_bleu:
        log.write_text(log.read_text().replace("'criterion': {", CHOICE + "'criterion': {"))
    return load_run(str(path))


def slow(curve: Sequence[float], seconds: float, until: float) -> float:
    """The best of what was validated by *until*, counted out."""
    return max((value for number, value in enumerate(curve, 1) if number * seconds <= until), default=math.nan)


def test_at_the_time_of_the_baseline(tmp_path: Path) -> None:
    plain = run(tmp_path / "p", "plain", 1, (10, 13, 12, 12.5), 10)  # 40 seconds
    arch = run(tmp_path / "a", "arch", 1, (9, 12, 11, 14), 16)
    assert value_at_time(arch, plain) == slow((9, 12, 11, 14), 16, 40) == 12
    assert value_at_time(plain, plain) == 13
    late = run(tmp_path / "l", "arch", 1, (15,), 41)
    assert math.isnan(value_at_time(late, plain))


def test_time_to_the_baselines_best(tmp_path: Path) -> None:
    plain = run(tmp_path / "p", "plain", 1, (10, 13, 12), 10)
    assert seconds_to_best(run(tmp_path / "a", "arch", 1, (9, 12, 11, 14), 16), plain) == 64
    assert seconds_to_best(plain, plain) == 20
    assert seconds_to_best(run(tmp_path / "n", "arch", 1, (12.9,) * 9, 16), plain) == math.inf


def test_the_lowest_loss_where_that_chose_and_no_comparison_of_different_choices(tmp_path: Path) -> None:
    plain = run(tmp_path / "p", "plain", 1, (10, 13, 12), 10, by_bleu=False)
    arch = run(tmp_path / "a", "arch", 1, (12, 14), 20, by_bleu=False)
    assert value_at_time(arch, plain) == 20 - 12 + 0.5  # the loss of the fake log is half a bit above its nll
    assert seconds_to_best(arch, plain) == 40
    assert math.isnan(value_at_time(run(tmp_path / "b", "arch", 1, (12, 14), 20), plain))


def test_seeds_are_compared_with_their_own_baseline(tmp_path: Path) -> None:
    plain = [run(tmp_path / f"p{seed}", "plain", seed, (10, 13), 10) for seed in (1, 2)]
    arch = [run(tmp_path / f"a{seed}", "arch", seed, (10 + seed, 11 + seed), 10) for seed in (1, 2, 3)]
    assert [(mine.seed, theirs.seed) for mine, theirs in pairs_of_seeds(arch, plain)] == [(1, 1), (2, 2)]
    _, row = result_rows([*plain, *arch])
    assert row.at_baseline_time.mean == (12 + 13) / 2
    assert row.minutes_text() == "0.3 (1 of 2 seeds)"
    head, first, second = to_text([*result_rows([*plain, *arch])]).splitlines()
    assert head.endswith("epoch time / plain  valid bleu at plain's time  minutes to plain's best")
    assert first.endswith("0.3 ± 0.0") and second.endswith("12.50 ± 0.71       0.3 (1 of 2 seeds)")
    told = json.loads(json.dumps(to_json(result_rows([*plain, *arch])), allow_nan=False))
    assert told[1]["minutes_to_baseline_best"] == [None, 20 / 60] and told[1]["valid_at_baseline_time"] == 12.5


def test_never_and_unknown_are_words(tmp_path: Path) -> None:
    plain = run(tmp_path / "p", "plain", 1, (10, 13), 10)
    rows = result_rows([plain, run(tmp_path / "a", "arch", 1, (9, 9), 10), run(tmp_path / "b", "r3f", 2, (9, 9), 10)])
    assert [row.minutes_text() for row in rows] == ["0.3", "never", "–"]
