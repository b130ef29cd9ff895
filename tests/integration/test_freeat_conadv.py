"""FreeAT's replays and both modes of ConAdv in real trainings: groups, resumes, micro-batches and ranks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch

from tests.integration.resume_on_ranks import in_parts, train_on_ranks
from tests.integration.running import build_trainer, default_args, save_checkpoint
from tests.integration.training import ARCHITECTURES, architecture_options, go_on, train

METHODS = {
    "freeat": "--criterion freeat_label_smoothed --freeat-replays 3",
    "lookahead": "--criterion conadv_label_smoothed --conadv-mode lookahead",
    "shifted": "--criterion conadv_label_smoothed --conadv-mode shifted",
}
TASK = ["--task", "adversarial_translation"]
SGD = ["--dropout", "0", "--optimizer", "sgd", "--lr", "0.2"]


def job(data: Path, save_dir: Path, method: str, *options: str) -> List[str]:
    return [*default_args(data, save_dir), *TASK, *METHODS[method].split(), *options]


def recorded_groups(training: Any) -> List[List[List[int]]]:
    """The sample ids of each micro-batch of each update that *training* will take."""
    groups: List[List[List[int]]] = []
    own_step = training.trainer.train_step

    def remember(batches: Any) -> Any:
        groups.append([batch["id"].tolist() for batch in batches])
        return own_step(batches)

    training.trainer.train_step = remember
    return groups


# ---- replays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--update-freq", "2"], ["--target-batch-tokens", "400"]])
def test_each_batch_makes_three_updates_in_a_row(tiny_corpus, tmp_path, options):
    plain = build_trainer([*default_args(tiny_corpus, tmp_path / "plain"), *TASK, *options])
    ours = build_trainer(job(tiny_corpus, tmp_path / "freeat", "freeat", *options))
    expected, groups = recorded_groups(plain), recorded_groups(ours)
    go_on(plain)
    go_on(ours)
    assert groups == [group for group in expected for _ in range(3)]
    assert ours.trainer.get_num_updates() == 3 * plain.trainer.get_num_updates()


def test_replays_begin_with_the_method(tiny_corpus, tmp_path):
    training = build_trainer(job(tiny_corpus, tmp_path, "freeat", "--adv-start-update", "4"))
    groups = recorded_groups(training)
    go_on(training, 10)
    assert len({str(group) for group in groups[:5]}) == 5
    assert groups[4:10] == [groups[4]] * 3 + [groups[7]] * 3


def test_schedule_counts_replays_as_updates(tiny_corpus, tmp_path):
    options = ["--batch-tokens-schedule", "200@0,400@6,300@10"]
    logs = train(job(tiny_corpus, tmp_path, "freeat", *options)).logs
    tokens = [log["batch_tokens"] for log in logs]
    targets = [200] * 6 + [400] * 6 + [300] * 3  # a batch keeps the target with which it began
    assert all(abs(token - target) < 150 for token, target in zip(tokens, targets))
    assert tokens[9] == tokens[11] and [log["batch_tokens_target"] for log in logs[9:11]] == [400, 300]


@pytest.mark.parametrize("method", ["freeat", "lookahead"])
def test_fairseqs_own_task_is_refused(tiny_corpus, tmp_path, method):
    args = [*job(tiny_corpus, tmp_path, method), "--task", "translation"]
    with pytest.raises(ValueError, match=r"TranslationTask.*--task adversarial_translation"):
        build_trainer(args)


def test_shifted_works_with_fairseqs_own_task(tiny_corpus, tmp_path):
    ours, theirs = (
        train([*job(tiny_corpus, tmp_path / task, "shifted"), "--task", task], 6).losses
        for task in ("adversarial_translation", "translation")
    )
    assert ours == theirs and ours[-1] < ours[0] - 0.1


def test_a_cpu_is_told_that_looking_ahead_cannot_be_faster(tiny_corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(job(tiny_corpus, tmp_path, "lookahead"), 3)
    assert sum("cannot be faster" in record.getMessage() for record in caplog.records) == 1


# ---- every mode -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shifted_on_every_kind_of_model(tiny_corpus, tmp_path, architecture):
    args = [*architecture_options(tiny_corpus, tmp_path, architecture), *METHODS["shifted"].split()]
    trained = train(args, 3)
    assert all(log["adv_nonfinite"] == 0 for log in trained.logs)
    assert trained.logs[0]["adv_norm_src"] == 0 < trained.logs[1]["adv_norm_src"]


@pytest.mark.parametrize("extra", [["--amp"], ["--checkpoint-activations"]])
def test_shifted_with_options_that_change_no_loss(tiny_corpus, tmp_path, extra):
    expected, ours = (
        train([*job(tiny_corpus, tmp_path / str(len(more)), "shifted"), *more], 4).losses
        for more in (list[str](), extra)
    )
    assert ours == pytest.approx(expected, rel=1e-6)


def test_shifted_in_half_precision(tiny_corpus, tmp_path):
    half = ["--fp16", "--memory-efficient-fp16", "--fp16-init-scale", "16"]
    expected, ours = (train([*job(tiny_corpus, tmp_path / str(len(o)), "shifted"), *o], 3) for o in ([], half))
    assert next(ours.training.model.parameters()).dtype == torch.float16
    assert ours.losses == pytest.approx(expected.losses, rel=5e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [[], ["--update-freq", "2"], ["--target-batch-tokens", "400"]])
def test_resume_inside_an_epoch(tiny_corpus, tmp_path, method, options):
    """With dropout; FreeAT stops between the replays of a batch."""
    straight = in_parts(job(tiny_corpus, tmp_path / "straight", method, *options), [])
    resumed = in_parts(job(tiny_corpus, tmp_path / "resumed", method, *options), [2, 4])
    assert resumed["losses"] == straight["losses"] and len(straight["losses"]) > 4


@pytest.mark.parametrize("method", METHODS)
def test_second_epoch_after_a_resume(tiny_corpus, tmp_path, method):
    def second_epoch(save_dir: Path, stop: int) -> List[float]:
        args = job(tiny_corpus, save_dir, method, "--max-tokens", "400")
        first = train(args)
        start = go_on(first.training, stop, epoch=2)
        save_checkpoint(start.training.trainer)
        return start.losses + train(args, epoch=2).losses

    assert second_epoch(tmp_path / "a", 2) == second_epoch(tmp_path / "b", 4)


def test_shifted_three_micro_batches_equal_one_large_batch(tiny_corpus, tmp_path):
    """Up to the epoch's last group, which is not full."""
    options = [*SGD, "--update-freq", "3"]
    micro = build_trainer(job(tiny_corpus, tmp_path / "micro", "shifted", *options))
    groups = recorded_groups(micro)
    expected = go_on(micro)
    assert len(groups[0]) == 3 > len(groups[-1]) > 0
    large = build_trainer(job(tiny_corpus, tmp_path / "large", "shifted", *options))
    data, own_step = large.task.dataset("train"), large.trainer.train_step

    def merge(_: Any) -> Any:
        return own_step([data.collater([data[i] for batch in groups.pop(0) for i in batch])])

    large.trainer.train_step = merge
    ours = go_on(large)
    assert ours.losses == pytest.approx(expected.losses, rel=1e-4)
    assert ours.gradient_norms == pytest.approx(expected.gradient_norms, rel=1e-3)


# ---- two ranks --------------------------------------------------------------------------------------------

TOKENS = ["--target-batch-tokens", "300", "--max-tokens", "100"]
BACKENDS = ("legacy_ddp", "pytorch_ddp")


@pytest.fixture(scope="module")
def on_two_ranks(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[Any, Dict[str, Any]]:
    """(method, ddp backend or ``"resumed"``) -> an epoch with batches in tokens; the resumed one stops twice."""
    directory = tmp_path_factory.mktemp("two_ranks")
    keys = [(method, how) for method in METHODS for how in (*BACKENDS, "resumed")]
    jobs = []
    for index, (method, how) in enumerate(keys):
        args = job(tiny_corpus, directory / f"run{index}", method, *SGD, *TOKENS)
        stops = [2, 4] if how == "resumed" else []
        jobs.append({"args": [*args, "--ddp-backend", BACKENDS[0] if stops else how], "stops": stops})
    return dict(zip(keys, train_on_ranks(2, jobs, directory)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_two_ranks_with_other_numbers_of_micro_batches_equal_one(tiny_corpus, tmp_path, on_two_ranks, method, backend):
    one, two = in_parts(job(tiny_corpus, tmp_path, method, *SGD, *TOKENS), []), on_two_ranks[method, backend]
    assert two["batch_tokens"] == one["batch_tokens"]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-3)
    for name, value in one["parameters"].items():
        torch.testing.assert_close(two["parameters"][name], value, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_resume_on_two_ranks(on_two_ranks, method):
    assert on_two_ranks[method, "resumed"]["losses"] == on_two_ranks[method, BACKENDS[0]]["losses"]
