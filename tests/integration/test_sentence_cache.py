"""ARCH on sentences in real trainings: its one-sided cache against a slow reference, served beside the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
import torch.nn.functional as F

from fairseq_adv.cache import open_cache
from fairseq_adv.criterions.arch import ArchCriterion
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.neighbors import choose_cache_set
from tests.integration import arch_sentence_reference as reference
from tests.integration.forked_ranks import train_on_ranks, validation_loss
from tests.integration.running import build_trainer, epoch_batches, save_checkpoint
from tests.integration.sentences import binarise_sentences, sentence_args
from tests.integration.test_arch_serving import THREAD, losses_of, reads  # noqa: F401

ALPHA, SEED, PAD = 0.25, 1, 1
SLOW = pytest.mark.slow
NO_DROPOUT = ("--dropout", 0, "--attention-dropout", 0)
B1 = reference.Rule(epsilon=0.5, steps=3, step_size=0.2)
B2 = reference.Rule(epsilon=0.03, steps=2, step_size=0.2, start_sigma=0.02)  # steps that do something
RULES: Dict[str, Any] = {
    "B.1": (B1, "--adv-eps 0.5 --adv-steps 3 --adv-step-size 0.2 --cache-interval 2", (1, 3)),
    "B.2": (
        B2,
        "--adv-preset arch-b2 --adv-eps 0.03 --adv-steps 2 --adv-step-size 0.2 --adv-init-sigma 0.02",
        (1,),  # cached once: Tc = inf
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """Single sentences of three classes, and pairs with a number."""
    return {
        "classes": binarise_sentences(tmp_path_factory.mktemp("classes")),
        "numbers": binarise_sentences(tmp_path_factory.mktemp("numbers"), pairs=True, regression=True),
    }


def job(data: Dict[str, Path], kind: str, save_dir: Path, *options: Any) -> List[str]:
    words = sentence_args(data[kind], save_dir, regression=kind == "numbers")
    words += ["--criterion", "arch_sentence_prediction", "--cache-proportion", "0.3", "--cache-ema", str(ALPHA)]
    return [*words, *map(str, options)]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Dict[int, torch.Tensor]:
    """The perturbation of each sample (``S x D``) that the outer loss used last."""
    found: Dict[int, torch.Tensor] = {}
    original = TrainingBatch.perturbed

    def perturbed(batch: Any, delta: Any, **masks: Any) -> Any:
        found.update(zip(batch.sample["id"].tolist(), delta.sentences("src")))
        return original(batch, delta, **masks)

    monkeypatch.setattr(TrainingBatch, "perturbed", perturbed)
    return found


def in_double_precision(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A divergence is a difference of nearly equal numbers; perturbations themselves stay in fp32."""
    training.model.double()
    monkeypatch.setattr(training.trainer, "clip_grad_norm", lambda limit: torch.ones(()))  # fairseq's wants fp32
    monkeypatch.setattr(F, "log_softmax", lambda x, dim, dtype=None: torch.log_softmax(x.double(), dim=dim))


def assert_near(mine: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    assert mine.shape == expected.shape, what
    error = (mine - expected).norm() / expected.norm()
    assert error < 2e-5, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("classes", "B.1"),
        ("numbers", "B.2"),
        pytest.param("numbers", "B.1", marks=SLOW),
        pytest.param("classes", "B.2", marks=SLOW),
    ],
)
def test_cache_and_reconstruction_equal_algorithm_3(data, tmp_path, monkeypatch, used, kind, rule):
    moves, options, refreshes = RULES[rule]
    exact = ["--cache-dtype", "fp32", "--cache-num-neighbors", 2, *NO_DROPOUT]
    divergence = ["--adv-divergence", "sym-kl"] if kind == "classes" else []  # numbers have their own
    training = build_trainer(job(data, kind, tmp_path, *exact, *divergence, *options.split()))
    in_double_precision(training, monkeypatch)
    cache: Dict[int, torch.Tensor] = {}
    for epoch in (1, 2, 3, 4):
        used.clear()
        expected: Dict[int, torch.Tensor] = {}
        for samples in epoch_batches(training.trainer, epoch):
            neighbors = training.criterion.perturbations.neighbors
            for i, tokens in reference.rows(samples[0], PAD):
                if epoch in refreshes:
                    expected[i] = reference.worst_case(training.model.train(), tokens, i, epoch, SEED, moves)
                elif neighbors.is_cached([i])[0]:
                    expected[i] = cache[i]
                else:
                    nearest = neighbors.lookup([i], "src")[0].tolist()
                    expected[i] = reference.from_neighbors(cache, nearest, len(tokens))
            training.trainer.train_step(samples)
        assert sorted(used) == sorted(expected) == list(range(160))
        for i, delta in expected.items():
            assert_near(used[i], delta, f"epoch {epoch}, sample {i}")
        if epoch in refreshes:
            for i in neighbors.cache_ids.tolist():
                reference.moving_average(cache, i, expected[i], ALPHA)
        save_checkpoint(training.trainer)
        reader = training.criterion.perturbations.cache.reader
        assert sorted(reader.ids.tolist()) == sorted(cache) == choose_cache_set(160, 0.3, SEED).tolist()
        assert reader.sides == ("src",)
        for i, delta in zip(reader.ids.tolist(), reader.read(reader.ids, "src")):
            assert_near(delta, cache[i], f"cache of sample {i}")


@pytest.mark.parametrize("kind", ["classes", pytest.param("numbers", marks=SLOW)])
def test_losses_are_the_same_with_and_without_the_thread(data, tmp_path, monkeypatch, reads, kind):  # noqa: F811
    options = ("--cache-interval", 2, "--cache-dtype", "int8", "--update-freq", 3, "--cache-num-neighbors", 2)
    beside = losses_of(job(data, kind, tmp_path / "beside", *options))
    assert len(reads) > 10 and set(reads) == {THREAD}
    from_disk = losses_of(job(data, kind, tmp_path / "disk", *options, "--cache-means-memory", 0))
    monkeypatch.setattr(ArchCriterion, "foreseer", lambda self, dataset: None)
    assert beside == from_disk == losses_of(job(data, kind, tmp_path / "alone", *options))


@pytest.mark.parametrize(("kind", "stop"), [("numbers", 3), ("classes", 14)], ids=["in-refresh", "between"])
def test_a_resume_inside_an_epoch_leaves_no_seam(data, tmp_path, kind, stop):
    options = ("--cache-interval", 2, "--save-interval-updates", 1)
    whole = in_two_parts(job(data, kind, tmp_path / "whole", *options), None)
    assert in_two_parts(job(data, kind, tmp_path / "cut", *options), stop) == whole
    caches = [open_cache(tmp_path / name / "perturbations") for name in ("whole", "cut")]
    records = [reader.read(reader.ids, "src") for reader in caches]
    assert all(torch.equal(a, b) for a, b in zip(*records)) and len(records[0]) == 48


def in_two_parts(args: List[str], stop: Any) -> List[float]:
    """Losses of three epochs of ten updates; after update *stop* the run saves and is built anew."""
    training, losses, epoch = build_trainer(args), [], 1
    while epoch <= 3:
        for samples in epoch_batches(training.trainer, epoch):
            losses.append(training.trainer.train_step(samples)["loss"])
            if len(losses) == stop:
                break
        save_checkpoint(training.trainer)
        if len(losses) == stop and len(losses) < 10 * epoch:
            training.criterion.perturbations.cache.close()
            training, stop = build_trainer(args), None
        else:
            epoch += 1
    training.criterion.perturbations.cache.close()
    return losses


def test_two_ranks_cache_what_one_rank_caches_and_learn_the_same(data, tmp_path):
    sgd = ["--optimizer", "sgd", "--lr", 0.05, "--cache-dtype", "fp32", "--cache-interval", 2, "--max-epoch", 3]
    backend = ["--ddp-backend", "legacy_ddp", "--target-batch-sentences", 32, "--distributed-backend", "gloo"]
    jobs = []
    for ranks in (1, 2):
        args = job(data, "numbers", tmp_path / f"{ranks}/save", *sgd, *backend, *NO_DROPOUT)
        jobs.append({"args": args, "ranks": ranks, "folder": tmp_path / str(ranks)})
    train_on_ranks(jobs, tmp_path)
    one, two = (open_cache(tmp_path / f"{ranks}/save/perturbations") for ranks in (1, 2))
    assert one.ids.tolist() == sorted(two.ids.tolist()) == choose_cache_set(160, 0.3, SEED).tolist()
    assert len({entry["writer"] for entry in two.manifest.shards}) == 2
    for mine, expected in zip(two.read(one.ids, "src"), one.read(one.ids, "src")):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-4)
    assert validation_loss(tmp_path / "2") == pytest.approx(validation_loss(tmp_path / "1"), abs=1e-4)
