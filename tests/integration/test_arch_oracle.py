"""What a real training run caches and serves, against ``arch_reference.py``, for every sample, side and epoch."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
import torch

from fairseq_adv.criterions.frame.batch import TrainingBatch
from tests.integration import arch_reference as reference
from tests.integration.running import build_trainer, default_args, epoch_batches, save_checkpoint

EPSILON, STEPS, STEP_SIZE, ALPHA, SEED, K = 0.1, 3, 0.1, 0.25, 1, 2


def arch_args(corpus, tmp_path, *more: Any) -> List[Any]:
    """Training with dropout 0 and an exact cache: refreshes in epochs 1 and 3."""
    return [
        *default_args(corpus, tmp_path / "checkpoints"),
        *("--criterion", "arch_label_smoothed", "--adv-divergence", "sym-kl", "--dropout", 0, "--lr", 0.01),
        *("--cache-interval", 2, "--cache-ema", ALPHA, "--cache-dtype", "fp32", "--cache-num-neighbors", K),
        *("--cache-proportion", 0.3, "--adv-eps", EPSILON, "--adv-step-size", STEP_SIZE, *more),
    ]


def in_double_precision(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and log-softmax in fp64: a divergence of 1e-4 is a difference of nearly equal fp32 numbers, and its
    rounding alone would move δ by 1e-5. Perturbations themselves stay in fp32.
    """
    training.model.double()
    monkeypatch.setattr(training.trainer, "clip_grad_norm", lambda limit: torch.ones(()))  # fairseq's wants fp32
    monkeypatch.setattr(
        "fairseq.utils.log_softmax", lambda x, dim, onnx_trace=False: torch.log_softmax(x.double(), dim=dim)
    )


class Recorder:
    """Every perturbation that the outer loss used, by sample id and side, as ``len_i x D``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: Dict[int, Dict[str, torch.Tensor]] = {}
        original = TrainingBatch.perturbed

        def perturbed(batch, delta, shared_masks=None):
            sides = {side: delta.sentences(side) for side in delta.sides}
            for row, sample_id in enumerate(batch.sample["id"].tolist()):
                self.used[sample_id] = {side: rows[row] for side, rows in sides.items()}
            return original(batch, delta, shared_masks)

        monkeypatch.setattr(TrainingBatch, "perturbed", perturbed)


def assert_equal_perturbations(mine, expected, what):
    for side in ("src", "tgt"):
        assert mine[side].shape == expected[side].shape, what
        error = (mine[side] - expected[side]).norm() / expected[side].norm().clamp(min=1e-12)
        assert error < 1e-5, f"{what}, {side}: relative error {error:.1e}"


def assert_cache_equals(reader, expected, cache_ids):
    """The cache holds exactly *cache_ids* and, for each, the reference's values on both sides."""
    assert sorted(reader.ids.tolist()) == sorted(cache_ids)
    for sample_id in cache_ids:
        mine = {side: reader.read([sample_id], side)[0] for side in ("src", "tgt")}
        assert_equal_perturbations(mine, expected[sample_id], f"cache of sample {sample_id}")


LAST, CACHED = ("--cache-train-on-last-pass",), ("--cache-refresh", "cached")
VARIANTS = [
    (),
    ("--task", "adversarial_translation"),
    ("--cache-train-on-average",),
    CACHED,
    (*CACHED, "--cache-train-on-average"),
    LAST,
    (*LAST, *CACHED, "--task", "adversarial_translation"),
    (*LAST, "--adv-passes", "recompute"),
    (*LAST, "--adv-detach-clean"),
]


@pytest.mark.parametrize("options", VARIANTS, ids=" ".join)
def test_cache_and_reconstruction_equal_algorithm_3(tiny_corpus, tmp_path, monkeypatch, options):
    """With --cache-refresh cached, the second refresh (epoch 3) has Eq. 3 of the first one for uncached pairs."""
    on_average, on_last_pass = "--cache-train-on-average" in options, LAST[0] in options
    training = build_trainer(arch_args(tiny_corpus, tmp_path, *options))
    trainer, criterion, model = training.trainer, training.criterion, training.model
    in_double_precision(training, monkeypatch)
    pad, recorder = training.task.source_dictionary.pad(), Recorder(monkeypatch)
    cache: Dict[int, Dict[str, torch.Tensor]] = {}
    cache_ids: List[int] = []
    lengths = set()
    for epoch in (1, 2, 3, 4):
        recorder.used.clear()
        expected: Dict[int, Dict[str, torch.Tensor]] = {}
        renewed: Dict[int, Dict[str, torch.Tensor]] = {}
        for samples in epoch_batches(trainer, epoch):
            neighbors = criterion.perturbations.neighbors
            cache_ids = neighbors.cache_ids.tolist()
            for sample_id, source, prefix in reference.sentences(samples[0], pad):
                lengths.add(source.size(1))
                if epoch == 1 or (epoch == 3 and (sample_id in cache_ids or "cached" not in options)):
                    trained, stored = (
                        reference.worst_case(
                            model.train(), source, prefix, sample_id, epoch, SEED, EPSILON, steps, STEP_SIZE
                        )
                        for steps in (STEPS - on_last_pass, STEPS)
                    )
                    expected[sample_id], renewed[sample_id] = trained, stored
                elif sample_id in cache_ids:
                    expected[sample_id] = cache[sample_id]
                else:
                    size = {"src": source.size(1), "tgt": prefix.size(1)}
                    expected[sample_id] = {
                        side: reference.from_neighbors(
                            cache, neighbors.lookup([sample_id], side)[0].tolist(), side, size[side]
                        )
                        for side in ("src", "tgt")
                    }
            trainer.train_step(samples)
        assert sorted(recorder.used) == sorted(expected) and len(expected) == len(training.task.dataset("train"))
        if epoch in (1, 3):
            for sample_id in cache_ids:
                reference.moving_average(cache, sample_id, renewed[sample_id], ALPHA)
                if on_average:  # Eq. 2
                    expected[sample_id] = cache[sample_id]
        for sample_id, values in expected.items():
            assert_equal_perturbations(recorder.used[sample_id], values, f"epoch {epoch}, sample {sample_id}")
        save_checkpoint(trainer)
        assert_cache_equals(criterion.perturbations.cache.reader, cache, cache_ids)
    assert len(lengths) > 5 and min(lengths) == 2  # batches of mixed lengths, a one-word sentence among them
