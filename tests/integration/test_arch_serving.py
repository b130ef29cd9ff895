"""Between refreshes perturbations are read beside the training, and no loss differs for it, bit for bit."""

from __future__ import annotations

import threading
from typing import Any, Dict, List

import pytest
import torch

from fairseq_adv.criterions.arch import ArchCriterion
from fairseq_adv.data.cached_perturbations import CachedPerturbations
from tests.integration.running import build_trainer, default_args, save_checkpoint
from tests.integration.training import go_on

ARCH = ("--criterion", "arch_label_smoothed", "--cache-interval", 2, "--cache-proportion", 0.3, "--dropout", 0.2)
THREAD = "reading perturbations"


def arguments(corpus, folder, *options: Any) -> List[str]:
    return [str(word) for word in [*default_args(corpus, folder), *ARCH, "--cache-ema", 0.3, *options]]


def losses_of(args: List[str], epochs: int = 4) -> List[float]:
    """The exact loss of each update; a checkpoint ends each epoch."""
    training, losses = build_trainer(args), []
    for epoch in range(1, epochs + 1):
        losses += go_on(training, epoch=epoch).losses
        save_checkpoint(training.trainer)
    training.criterion.perturbations.cache.close()
    return losses


@pytest.fixture
def reads(monkeypatch) -> List[str]:
    """Names of the threads that read for a batch."""
    names, read = [], CachedPerturbations._read

    def noted(self, batch):
        names.append(threading.current_thread().name)
        return read(self, batch)

    monkeypatch.setattr(CachedPerturbations, "_read", noted)
    return names


@pytest.mark.parametrize("task", ["translation", "adversarial_translation"])
@pytest.mark.parametrize("more", [(), ("--cache-dtype", "int8", "--update-freq", 3, "--cache-num-neighbors", 2)])
def test_losses_are_the_same_with_and_without_the_thread(tiny_corpus, tmp_path, monkeypatch, reads, task, more):
    options = ("--task", task, *more)
    beside = losses_of(arguments(tiny_corpus, tmp_path / "beside", *options))
    assert len(reads) > 10 and set(reads) == {THREAD}
    from_disk = losses_of(arguments(tiny_corpus, tmp_path / "disk", *options, "--cache-means-memory", 0))
    monkeypatch.setattr(ArchCriterion, "foreseer", lambda self, dataset: None)
    reads.clear()
    alone = losses_of(arguments(tiny_corpus, tmp_path / "alone", *options))
    assert len(reads) > 10 and THREAD not in reads
    assert beside == alone == from_disk


def test_batches_counted_in_tokens_and_other_iterators_of_the_task(tiny_corpus, tmp_path, monkeypatch, reads):
    options = ("--task", "adversarial_translation", "--target-batch-tokens", 600)
    beside = losses_of(arguments(tiny_corpus, tmp_path / "beside", *options))
    assert set(reads) == {THREAD}
    monkeypatch.setattr(ArchCriterion, "foreseer", lambda self, dataset: None)
    assert beside == losses_of(arguments(tiny_corpus, tmp_path / "alone", *options))


@pytest.mark.parametrize("task", ["translation", "adversarial_translation"])
def test_a_resume_inside_a_served_epoch_leaves_no_seam(tiny_corpus, tmp_path, reads, task):
    whole = losses_of(arguments(tiny_corpus, tmp_path / "whole", "--task", task), epochs=2)
    args = arguments(tiny_corpus, tmp_path / "cut", "--task", task, "--save-interval-updates", 1)
    training = build_trainer(args)
    losses = go_on(training, epoch=1).losses
    save_checkpoint(training.trainer)
    losses += go_on(training, updates=3, epoch=2).losses
    save_checkpoint(training.trainer)
    training.criterion.perturbations.cache.close()
    reads.clear()
    losses += go_on(build_trainer(args), epoch=2).losses
    assert losses == whole and set(reads) == {THREAD}


def test_a_second_attempt_at_an_update_is_served_the_same(tiny_corpus, tmp_path):
    training = build_trainer(arguments(tiny_corpus, tmp_path, "--dropout", 0))
    go_on(training, epoch=1)
    save_checkpoint(training.trainer)
    first: Dict[str, Any] = {}
    served = ArchCriterion._serve

    def twice(self, batch, perturbations):
        first.update(served(self, batch, perturbations).values)
        again = served(self, batch, perturbations)
        assert all(torch.equal(first[side], again.values[side]) for side in again.sides)
        return again

    training.criterion._serve = twice.__get__(training.criterion)
    assert go_on(training, updates=2, epoch=2).losses and first


def test_a_damaged_record_is_named_in_the_update_that_needs_it(tiny_corpus, tmp_path):
    training = build_trainer(arguments(tiny_corpus, tmp_path))
    go_on(training, epoch=1)
    save_checkpoint(training.trainer)
    shard = next((tmp_path / "perturbations").glob("gen-*/w*.safetensors"))
    data = bytearray(shard.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header:] = bytes(len(data) - header)
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{shard.name}: the src record of sample \d+ is damaged"):
        go_on(training, epoch=2)


def test_validation_and_refreshes_read_nothing_ahead(tiny_corpus, tmp_path, reads):
    training = build_trainer(arguments(tiny_corpus, tmp_path))
    go_on(training, epoch=1)
    valid = training.trainer.get_valid_iterator("valid").next_epoch_itr(shuffle=False)
    assert len(list(valid)) > 0 and reads == []
