"""The best checkpoint as the run's configuration chose it, not as it is by default."""

from __future__ import annotations

from pathlib import Path
from typing import List

from fairseq_adv.report.runs import load_run
from tests.unit.report.fake_runs import line, write_run


def configured(folder: Path, dataset: str, checkpoint: str, more: List[str]) -> Path:
    write_run(folder, "arch", nlls=(7.0, 6.0, 6.5))
    log = folder / "train.log"
    sections = (
        f"'dataset': {{'_name': None, {dataset}}}, 'checkpoint': {{'_name': None, {checkpoint}}}, 'optimization':"
    )
    log.write_text(log.read_text().replace("'optimization':", sections) + "\n".join(more) + "\n")
    return folder


def test_the_highest_bleu_where_that_was_asked_for(tmp_path: Path) -> None:
    """BLEU of fake runs is 20 − nll: the loss is lowest in epoch 2, BLEU is made highest in epoch 3."""
    checkpoint = "'best_checkpoint_metric': 'bleu', 'maximize_best_checkpoint_metric': True"
    run = load_run(str(configured(tmp_path / "a", "'valid_subset': 'valid'", checkpoint, [])))
    assert run.best_validation is not None and run.best_validation["epoch"] == 2
    record = line("valid", 3, {"num_updates": 60, "nll_loss": 9.0, "loss": 9.5, "bleu": 15.0})
    run = load_run(str(configured(tmp_path / "b", "'valid_subset': 'valid'", checkpoint, [record])))
    assert run.best_validation is not None and run.best_validation["bleu"] == 15.0
    assert run.selection.text() == "highest bleu of valid"


def test_the_first_of_several_validation_sets(tmp_path: Path) -> None:
    records = [line("dev", e, {"num_updates": 20 * e, "nll_loss": 5 - e, "loss": 6 - e}) for e in (1, 2, 3)]
    checkpoint = "'best_checkpoint_metric': 'loss', 'maximize_best_checkpoint_metric': False"
    folder = configured(tmp_path / "a", "'valid_subset': 'dev,valid'", checkpoint, records)
    run = load_run(str(folder))
    assert run.best_validation is not None and (run.best_validation["epoch"], run.best_validation["nll_loss"]) == (3, 2)
    assert run.selection.text() == "lowest loss of dev"


def test_of_equal_validations_the_latest(tmp_path: Path) -> None:
    run = load_run(str(write_run(tmp_path / "a", nlls=(7.0, 6.0, 6.0))))
    assert run.best_validation is not None and run.best_validation["epoch"] == 3


def test_what_the_log_does_not_tell_is_said(tmp_path: Path) -> None:
    run = load_run(str(write_run(tmp_path / "a")))
    assert not run.selection.known and "assumed" in run.selection.text()


def test_a_metric_that_was_never_logged_chooses_nothing(tmp_path: Path) -> None:
    checkpoint = "'best_checkpoint_metric': 'ppl', 'maximize_best_checkpoint_metric': False"
    assert load_run(str(configured(tmp_path / "a", "'valid_subset': 'valid'", checkpoint, []))).best_validation is None
