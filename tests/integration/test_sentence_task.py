"""``--task adversarial_sentence_prediction`` in real trainings: batches, resumes, ranks, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, List

import pytest
import torch

from tests.integration.resume_on_ranks import in_parts, train_on_ranks
from tests.integration.running import build_trainer, epoch_batches, run_fairseq_train, save_checkpoint
from tests.integration.sentences import binarise_sentences, sentence_args
from tests.integration.training import go_on, train

SGD = ["--dropout", "0", "--attention-dropout", "0", "--optimizer", "sgd", "--lr", "0.05"]
METHODS = {
    "r3f": "--criterion r3f_sentence_prediction --r3f-sigma 0.1",
    "smart": "--criterion smart_sentence_prediction --adv-detach-clean",
    "freeat": "--criterion freeat_sentence_prediction --freeat-replays 3",
    "freelb": "--criterion freelb_sentence_prediction",
    "lookahead": "--criterion conadv_sentence_prediction --conadv-mode lookahead",
    "shifted": "--criterion conadv_sentence_prediction --conadv-mode shifted",
}


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single sentences of three classes."""
    return binarise_sentences(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of sentences with a number."""
    return binarise_sentences(tmp_path_factory.mktemp("numbers"), pairs=True, regression=True)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single sentences of two classes, 0 and 1."""
    return binarise_sentences(tmp_path_factory.mktemp("labels"), classes=("0", "0", "1"))


def job(data: Path, save_dir: Path, *options: Any, regression: bool = False) -> List[str]:
    return [*sentence_args(data, save_dir, regression), *map(str, options)]


# ---- batches ----------------------------------------------------------------------------------------------


def padded_per_real_token(batches: List[Any]) -> float:
    tokens = [sample["net_input"]["src_tokens"] for group in batches for sample in group]
    return sum(t.numel() for t in tokens) / sum(int(t.ne(1).sum()) for t in tokens)


def members(batches: List[Any]) -> set:
    return {frozenset(sample["id"].tolist()) for group in batches for sample in group}


def test_batches_have_like_lengths_and_other_members_in_each_epoch(classes, tmp_path):
    epochs = {}
    for task in ("sentence_prediction", "adversarial_sentence_prediction"):
        trainer = build_trainer(job(classes, tmp_path, "--task", task, "--init-token", 0)).trainer
        epochs[task] = [list(epoch_batches(trainer, epoch)) for epoch in (1, 2)]
    stock, ours = epochs.values()
    assert all(sorted(i for ids in members(epoch) for i in ids) == list(range(160)) for epoch in ours)
    assert padded_per_real_token(ours[0]) < 1.1 < 1.4 < padded_per_real_token(stock[0])
    assert members(stock[0]) == members(stock[1]) and len(members(ours[0]) & members(ours[1])) < 5


def test_rows_start_with_the_token_that_the_head_reads(classes, numbers, tmp_path):
    for data, regression in ((classes, False), (numbers, True)):
        trainer = build_trainer(job(data, tmp_path, regression=regression)).trainer
        sample = next(iter(epoch_batches(trainer, 1)))[0]
        assert sample["net_input"]["src_tokens"][:, 0].eq(0).all()


def test_the_order_of_the_data_is_kept_on_demand(classes, tmp_path):
    trainer = build_trainer(job(classes, tmp_path, "--no-shuffle")).trainer
    ids = [i for group in epoch_batches(trainer, 1) for sample in group for i in sample["id"].tolist()]
    assert sorted(ids) == list(range(160)) and ids[:16] == list(range(ids[0], ids[0] + 16))


# ---- resumes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_resume_inside_an_epoch_is_not_seen(numbers, tmp_path, method):
    straight, resumed = (
        in_parts(job(numbers, tmp_path / name, *METHODS[method].split(), regression=True), stops)
        for name, stops in (("straight", []), ("resumed", [3, 8]))
    )
    assert resumed["losses"] == straight["losses"] and resumed["norms"] == straight["norms"]


def test_a_resume_inside_a_later_epoch_sees_the_same_batches(classes, tmp_path):
    options = [*METHODS["r3f"].split(), "--update-freq", 2]
    straight = train(job(classes, tmp_path / "straight", *options))
    expected = go_on(straight.training, epoch=2).losses
    first = train(job(classes, tmp_path / "resumed", *options))
    part = go_on(first.training, 2, epoch=2)
    save_checkpoint(first.training.trainer)
    rest = train(job(classes, tmp_path / "resumed", *options), epoch=2)
    assert len(rest.losses) > 1 and part.losses + rest.losses == expected


# ---- batches in sentences ----------------------------------------------------------------------------------


def test_batches_are_counted_in_sentences_and_the_rate_follows(classes, tmp_path):
    schedule = "--batch-sentences-schedule 32@0,64@3 --lr-scheduler inverse_sqrt_batch --lr-base-batch-tokens 32"
    options = [*SGD, *schedule.split(), "--lr-batch-power", 1, "--lr-warmup-updates", 1]
    logs = train(job(classes, tmp_path, *options)).logs
    assert [log["batch_sentences"] for log in logs] == [32, 32, 32, 64]
    assert [log["batch_sentences_target"] for log in logs] == [32, 32, 32, 64]


@pytest.mark.parametrize("method", ["r3f", "freeat"])
def test_two_ranks_train_as_one(classes, tmp_path, method):
    options = [*SGD, *METHODS[method].split(), "--target-batch-sentences", 48, "--batch-size", 12]
    jobs = [job(classes, tmp_path / "two", *options, "--ddp-backend", backend) for backend in ("legacy_ddp",)]
    jobs += [job(classes, tmp_path / "pytorch", *options, "--ddp-backend", "pytorch_ddp", "--find-unused-parameters")]
    one = in_parts(job(classes, tmp_path / "one", *options), [])
    for several in train_on_ranks(2, [{"args": words} for words in jobs], tmp_path):
        assert several["losses"] == pytest.approx(one["losses"], rel=1e-4)
        for name, value in one["parameters"].items():
            torch.testing.assert_close(several["parameters"][name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("report", "criterion", "kind"),
    [
        ("mcc", "rdrop_sentence_prediction", "labels"),
        pytest.param("acc-and-f1", "sentence_prediction", "labels", marks=pytest.mark.slow),
        pytest.param("pearson-and-spearman", "vat_sentence_prediction", "numbers", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_report_what_one_rank_reports(request, tmp_path, report, criterion, kind):
    data, regression = request.getfixturevalue(kind), kind == "numbers"
    outputs = [] if regression else ["--num-classes", 2]
    options = [*SGD, *outputs, "--criterion", criterion, f"--report-{report}", "--ddp-backend", "legacy_ddp"]
    values = []
    for nproc in (1, 2):
        words = job(data, tmp_path / str(nproc), *options, "--target-batch-sentences", 32, regression=regression)
        values.append(run_fairseq_train(words, nproc=nproc).column(report.replace("-", "_"), "valid"))
    assert len(values[0]) == 1 and values[1] == pytest.approx(values[0], abs=0.2)


# ---- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-positions", 8], r"rows of valid are longer than --max-positions 8; .*--shorten-method truncate"),
        (["--num-classes", 2], r"--num-classes 2, but label/dict.txt has 3"),
        (["--num-classes", -1], r"--num-classes must be the number of classes"),
        (["--regression-target"], r"no numbers to predict .*label/valid\.label"),
        (["--target-batch-sentences", 8], r"the target of 8 sentences per update .*lower --batch-size to at most 8"),
        (["--target-batch-sentences", 64, "--update-freq", 2], r"--update-freq 2 and a batch counted in sentences"),
        (["--target-batch-sentences", "many"], r"--target-batch-sentences must be a whole number"),
        (["--batch-sentences-schedule", "32@4"], r"--batch-sentences-schedule '32@4': the first entry must hold"),
        (["--report-mcc"], r"--report-mcc needs labels that are whole numbers, .*plain"),
        (["--valid-subset", "absent"], r"no rows .*input0/absent\.bin"),
    ],
)
def test_refusals_say_what_to_do(classes, tmp_path, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(job(classes, tmp_path, *options))


def test_f1_of_more_than_two_classes_is_refused(tmp_path):
    data = binarise_sentences(tmp_path / "data", classes=("0", "1", "2"))
    build_trainer(job(data, tmp_path, "--report-mcc"))
    with pytest.raises(ValueError, match="--report-acc-and-f1 needs the labels 0 and 1"):
        build_trainer(job(data, tmp_path, "--report-acc-and-f1"))


def test_missing_labels_are_refused_when_the_data_are_loaded(classes, numbers, tmp_path):
    for data, regression, names in ((classes, False, ["valid.bin", "valid.idx"]), (numbers, True, ["valid.label"])):
        copy = tmp_path / str(regression)
        shutil.copytree(data, copy)
        for name in names:
            (copy / "label" / name).unlink()
        with pytest.raises(FileNotFoundError, match=r"label/valid"):
            build_trainer(job(copy, tmp_path, regression=regression))


def test_long_rows_are_shortened_or_left_out_on_demand(classes, tmp_path):
    cut = build_trainer(job(classes, tmp_path, "--max-positions", 8, "--shorten-method", "truncate")).trainer
    assert sum(sample["nsentences"] for group in epoch_batches(cut, 1) for sample in group) == 160
    left_out = build_trainer(job(classes, tmp_path, "--max-positions", 8, "--skip-invalid-size-inputs-valid-test"))
    assert 0 < sum(s["nsentences"] for group in epoch_batches(left_out.trainer, 1) for s in group) < 160


def test_a_backend_that_waits_for_unused_parameters_is_refused(classes, tmp_path):
    outcome = run_fairseq_train(job(classes, tmp_path, "--ddp-backend", "pytorch_ddp"), check=False, nproc=2)
    assert outcome.returncode != 0
    assert "give --find-unused-parameters, or --ddp-backend legacy_ddp" in outcome.stderr + outcome.stdout
