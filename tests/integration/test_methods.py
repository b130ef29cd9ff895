"""Every method through fairseq's own trainer: models, precisions, micro-batches, resume and two ranks.

The methods come from the registry, so that a new one is tested as soon as it is registered.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import torch

from tests.integration.running import build_trainer, default_args, save_checkpoint
from tests.integration.training import (
    ARCHITECTURES,
    CASES,
    METHODS,
    Trained,
    architecture_options,
    go_on,
    method_options,
    train,
)
from tests.integration.two_ranks import outcome, train_on_two_ranks

PLAIN = "label_smoothed_cross_entropy"
# loss = clean cross-entropy + weight x adv_loss
WEIGHTS = {"arch": 1.0, "r3f": 1.0, "scala": 1.0, "simcut": 3.0, "smart": 1.0, "vat": 1.0}
FP16 = ["--fp16", "--memory-efficient-fp16", "--fp16-init-scale", "16"]
# equal gradients give equal updates, and no adaptive step blows rounding noise up
SGD = ["--dropout", "0", "--optimizer", "sgd", "--lr", "0.2"]
UPDATES = 6


@pytest.fixture(scope="module")
def short_run(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Case -> its first updates on the default model, trained once."""

    @functools.cache
    def run(case: str) -> Trained:
        args = default_args(tiny_corpus, tmp_path_factory.mktemp("short_run"))
        return train([*args, *method_options(case)], UPDATES)

    return run


@pytest.fixture(scope="module")
def start_of(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    """(architecture, criterion) -> its first two updates."""

    @functools.cache
    def start(architecture: str, name: str) -> Trained:
        args = architecture_options(tiny_corpus, tmp_path_factory.mktemp("start"), architecture)
        return train([*args, *method_options(name)], updates=2)

    return start


@pytest.mark.parametrize("case", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trains_every_kind_of_model(start_of, architecture, case):
    ours, plain = start_of(architecture, case), start_of(architecture, PLAIN)
    assert all(math.isfinite(loss) for loss in ours.losses)
    assert [int(log["adv_nonfinite"]) for log in ours.logs] == [0, 0]
    assert ours.losses != plain.losses
    weight = WEIGHTS.get(case.split("_")[0])
    if weight is not None:  # the clean pass saw plain training's dropout masks
        penalty = ours.logs[0]["adv_loss"] * math.log(2)
        assert ours.losses[0] == pytest.approx(plain.losses[0] + weight * penalty, abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_short_training_learns(short_run, case):
    losses = short_run(case).losses
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("case", CASES)
def test_amp_on_a_cpu_changes_nothing(tiny_corpus, tmp_path, short_run, case):
    args = [*default_args(tiny_corpus, tmp_path), *method_options(case), "--amp"]
    assert train(args, 3).losses == pytest.approx(short_run(case).losses[:3], rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_recomputed_activations_change_nothing(tiny_corpus, tmp_path, short_run, case):
    args = [*default_args(tiny_corpus, tmp_path), *method_options(case), "--checkpoint-activations"]
    assert train(args, 3).losses == pytest.approx(short_run(case).losses[:3], rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_half_precision_follows_fp32(tiny_corpus, tmp_path, short_run, case):
    args = [*default_args(tiny_corpus, tmp_path), *method_options(case), *FP16]
    half = train(args, 3)
    assert next(half.training.model.parameters()).dtype == torch.float16
    assert half.losses == pytest.approx(short_run(case).losses[:3], rel=5e-3)
    assert all(int(log["adv_nonfinite"]) == 0 for log in half.logs)


@pytest.mark.parametrize("case", CASES)
def test_resume_in_the_middle_of_an_epoch(tiny_corpus, tmp_path, short_run, case):
    args = [*default_args(tiny_corpus, tmp_path), *method_options(case)]
    stopped = train(args, UPDATES // 2)
    save_checkpoint(stopped.training.trainer)
    rest = train(args, UPDATES - UPDATES // 2)
    assert rest.training.trainer.get_num_updates() == UPDATES
    assert stopped.losses + rest.losses == short_run(case).losses


def test_resume_was_at_stake(tiny_corpus, tmp_path, short_run):
    """A teacher that starts anew at the resume would show in the losses."""
    case = "smart_label_smoothed bregman"
    args = [*default_args(tiny_corpus, tmp_path), *method_options(case)]
    save_checkpoint(train(args, UPDATES // 2).training.trainer)
    training = build_trainer(args)
    training.criterion.teacher.parameters.clear()
    assert go_on(training, 1).losses[0] != short_run(case).losses[UPDATES // 2]


def test_arch_that_refreshes_in_every_epoch_and_keeps_nothing_is_smart(tiny_corpus, tmp_path):
    def two_epochs(case: str, *options: str) -> List[float]:
        args = [*default_args(tiny_corpus, tmp_path / case), *method_options(case), *options]
        first = train(args)
        return first.losses + go_on(first.training, epoch=2).losses

    arch = two_epochs("arch_label_smoothed", "--cache-interval", "1", "--cache-ema", "0")
    assert arch == two_epochs("smart_label_smoothed")


@pytest.mark.parametrize("case", ["r3f_label_smoothed", "freelb_label_smoothed", "disadv_label_smoothed"])
def test_gradients_are_clipped_once_for_all_backward_passes(tiny_corpus, tmp_path, case):
    args = [*default_args(tiny_corpus, tmp_path), *method_options(case), *SGD, "--clip-norm", "0.01"]
    training = build_trainer(args)
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    trained = go_on(training, 1)
    moved = torch.stack([(p - before[name]).norm() for name, p in trained.parameters().items()]).norm()
    assert trained.gradient_norms[0] > 0.1
    assert moved.item() == pytest.approx(0.2 * 0.01, rel=1e-3)


# ---- the same global batch, cut differently ---------------------------------------------------------------


def assert_same_training(ours: Dict[str, Any], expected: Dict[str, Any]) -> None:
    assert "error" not in ours, ours.get("error")
    assert len(ours["losses"]) == len(expected["losses"]) > 3
    assert ours["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert ours["norms"] == pytest.approx(expected["norms"], rel=1e-3)
    for name, value in expected["parameters"].items():
        torch.testing.assert_close(ours["parameters"][name], value, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_three_micro_batches_equal_one_large_batch(tiny_corpus, tmp_path, case):
    """``--update-freq 3`` up to the epoch's last group, which is not full."""
    options = [*method_options(case), *SGD, "--update-freq", "3"]
    groups: List[List[List[int]]] = []

    def remember(sample_lists: Any) -> Any:
        groups.append([batch["id"].tolist() for batch in sample_lists])
        return own_step(sample_lists)

    training = build_trainer([*default_args(tiny_corpus, tmp_path / "micro"), *options])
    own_step, training.trainer.train_step = training.trainer.train_step, remember
    micro = outcome(go_on(training))
    assert len(groups[0]) == 3 > len(groups[-1]) > 0

    training = build_trainer([*default_args(tiny_corpus, tmp_path / "large"), *options])
    data = training.task.dataset("train")

    def merge(_: Any) -> Any:
        ids = [i for batch in groups.pop(0) for i in batch]
        return own_step([data.collater([data[i] for i in ids])])

    training.task.present_size = lambda: 1  # what the iterator would say of the merged batch
    own_step, training.trainer.train_step = training.trainer.train_step, merge
    assert_same_training(micro, outcome(go_on(training)))


DDP_BACKENDS = ("legacy_ddp", "pytorch_ddp")


@pytest.fixture(scope="module")
def on_two_ranks(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[Any, Dict[str, Any]]:
    """(case, ddp backend) -> outcome of an epoch on two ranks."""
    directory = tmp_path_factory.mktemp("two_ranks")
    keys = [(case, backend) for case in CASES for backend in DDP_BACKENDS]
    jobs = []
    for index, (case, backend) in enumerate(keys):
        args = [*default_args(tiny_corpus, directory / f"run{index}"), *method_options(case), *SGD]
        jobs.append({"args": [*args, "--ddp-backend", backend]})
    return dict(zip(keys, train_on_two_ranks(jobs, directory)))


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_equal_one_with_the_same_global_batch(tiny_corpus, tmp_path, on_two_ranks, case):
    """Batches are dealt in turn; the last update's second batch is a dummy one on rank 1."""
    one = train([*default_args(tiny_corpus, tmp_path), *method_options(case), *SGD, "--update-freq", "2"])
    assert len(one.training.trainer.epoch_itr) % 2 == 1
    for backend in DDP_BACKENDS:
        assert_same_training(on_two_ranks[case, backend], outcome(one))
