"""Which pairs ARCH caches, what stands in for those it lacks, and what a change of that answers."""

from __future__ import annotations

import logging
import re
from typing import Any, List

import numpy as np
import pytest
import torch

from fairseq_adv.cache import open_cache
from fairseq_adv.cli.main import main
from tests.integration.running import build_trainer, default_args, epoch_batches, save_checkpoint

ARCH = ("--criterion", "arch_label_smoothed", "--cache-interval", 2, "--cache-proportion", 0.3)
SHORT = ("--max-source-positions", 9, "--max-target-positions", 9, "--skip-invalid-size-inputs-valid-test")


def neighbor_file(corpus, path, *options: Any):
    assert main(["neighbors", str(corpus), "--output", str(path), "--embeddings", "random", *map(str, options)]) == 0
    return path


def run_epochs(training: Any, *epochs: int) -> List[Any]:
    rows = []
    for epoch in epochs:
        for samples in epoch_batches(training.trainer, epoch):
            rows.append(dict(training.trainer.train_step(samples)))
        save_checkpoint(training.trainer)
    return rows


# ---- pairs that are never trained -------------------------------------------------------------------------


def test_the_cache_set_is_chosen_among_the_pairs_that_are_trained(tiny_corpus, tmp_path):
    training = build_trainer([*default_args(tiny_corpus, tmp_path), *ARCH, *SHORT])
    dataset = training.task.dataset("train")
    kept = np.flatnonzero((dataset.src_sizes <= 9) & (dataset.tgt_sizes <= 9))
    assert 20 < len(kept) < len(dataset) - 20
    rows = run_epochs(training, 1, 2)
    held = open_cache(tmp_path / "perturbations").ids
    assert set(held) <= set(kept) and len(held) == round(0.3 * len(kept))
    assert all(row["adv_without"] == row["adv_further"] == 0 for row in rows)
    assert rows[-1]["adv_norm_src"] > 0


def test_a_file_that_chose_untrained_pairs_serves_further_neighbors(tiny_corpus, tmp_path, caplog):
    path = neighbor_file(tiny_corpus, tmp_path / "lists", "--proportion", 0.3)
    options = [*default_args(tiny_corpus, tmp_path), *ARCH, *SHORT, "--cache-neighbors", path]
    with caplog.at_level(logging.WARNING):
        training = build_trainer(options)
    assert "too long to be trained" in caplog.text
    rows = run_epochs(training, 1, 2)
    served = [row for row in rows if row["adv_refresh"] == 0]
    assert sum(row["adv_further"] for row in served) > 0  # shares of the updates' sentences
    assert all(row["adv_without"] < 0.2 for row in served)  # five lists of 30 % in a cache of half the set


def test_a_commit_tells_what_was_not_refreshed_and_who_has_no_neighbor(tiny_corpus, tmp_path, caplog):
    path = neighbor_file(tiny_corpus, tmp_path / "lists", "--proportion", 0.3, "--num-neighbors", 1)
    training = build_trainer([*default_args(tiny_corpus, tmp_path), *ARCH, "--cache-neighbors", path])
    lists, store = training.criterion.perturbations.neighbors, training.criterion.perturbations.store
    lost = set(lists.cache_ids[::2].tolist())

    def forgetful(batch, update, values, broken, factor):
        return store(batch, update, values, broken | torch.from_numpy(np.isin(batch.ids, list(lost))), factor)

    training.criterion.perturbations.store = forgetful
    with caplog.at_level(logging.WARNING):
        run_epochs(training, 1)
    held = set(open_cache(tmp_path / "perturbations").ids.tolist())
    alone = [
        i for i in range(160)
        if i not in held and any(lists.lookup([i], side)[0, 0] not in held for side in ("src", "tgt"))
    ]  # fmt: skip
    text = re.findall(r"generation 1 .*", caplog.text)[0]
    assert f"{len(held)} of 48 cached pairs were refreshed, 0 keep an older perturbation and {len(lost)} have" in text
    assert f"and {len(alone)} ({len(alone) / 160:.1%}) have no neighbor at all" in text and len(alone) > 10
    rows = run_epochs(training, 2)
    assert sum(row["adv_without"] for row in rows) > 0


# ---- a neighbour file brings its proportion ---------------------------------------------------------------


@pytest.mark.parametrize("given", [0.05, 0.3])
def test_a_proportion_that_is_not_the_files_is_refused(tiny_corpus, tmp_path, given):
    path = neighbor_file(tiny_corpus, tmp_path / "lists", "--proportion", 0.1)
    use = [*default_args(tiny_corpus, tmp_path / "run"), *ARCH, "--cache-neighbors", path]
    with pytest.raises(ValueError, match=rf"--cache-proportion {given:g}, but .*lists caches a share of 0\.1 of"):
        build_trainer([*use, "--cache-proportion", given])
    training = build_trainer([*use, "--cache-proportion", 0.1])
    assert len(training.criterion.perturbations.neighbors.cache_ids) == 16


# ---- refusals and their ways out --------------------------------------------------------------------------


def test_another_seed_on_resume_is_named_and_both_ways_out_work(tiny_corpus, tmp_path):
    args = [*default_args(tiny_corpus, tmp_path / "run"), *ARCH, "--save-interval-updates", 1]
    first = build_trainer(args)
    run_epochs(first, 1)
    first.criterion.perturbations.cache.close()
    again = [*args, "--seed", 2]
    with pytest.raises(ValueError, match=r"\(--adv-seed: 1 -> 2\): give the old value, or .*--reset-dataloader"):
        build_trainer(again)
    kept = build_trainer([*again, "--adv-seed", 1])
    assert kept.criterion.perturbations.cache.generation == 1
    kept.criterion.perturbations.cache.close()
    anew = build_trainer([*again, "--cache-dir", tmp_path / "other", "--reset-dataloader"])
    assert anew.criterion.perturbations.cache.generation is None and anew.criterion.seed == 2
    assert len(run_epochs(anew, 1)) > 5


def test_more_pairs_left_out_on_resume_name_the_options_that_do(tiny_corpus, tmp_path):
    args = [*default_args(tiny_corpus, tmp_path / "run"), *ARCH]
    build_trainer(args).criterion.perturbations.cache.close()
    with pytest.raises(ValueError, match=r"pairs left by --max-source-positions, .*: 160 -> \d+\): give the old"):
        build_trainer([*args, *SHORT])
    build_trainer(args)


def test_another_neighbor_file_is_named(tiny_corpus, tmp_path):
    paths = [neighbor_file(tiny_corpus, tmp_path / f"s{s}", "--proportion", 0.3, "--seed", s) for s in (1, 2)]
    args = [*default_args(tiny_corpus, tmp_path / "run"), *ARCH]
    build_trainer([*args, "--cache-neighbors", paths[0]]).criterion.perturbations.cache.close()
    with pytest.raises(ValueError, match=r"--cache-neighbors: .*s1 \(proportion 0\.3, seed 1\) -> .*s2 \(.*seed 2\)"):
        build_trainer([*args, "--cache-neighbors", paths[1]])


# ---- intervals and radius schedules -----------------------------------------------------------------------


def test_a_fraction_of_an_epoch_is_no_interval(tiny_corpus, tmp_path):
    with pytest.raises(ValueError, match=r"--cache-interval must be a whole number of epochs >= 1, or inf .*got 1\.5"):
        build_trainer([*default_args(tiny_corpus, tmp_path), *ARCH, "--cache-interval", 1.5])


def test_what_is_served_has_the_radius_of_its_own_update(tiny_corpus, tmp_path):
    more = ("--cache-proportion", 1, "--cache-dtype", "fp32", "--lr", 0, "--dropout", 0, "--adv-eps", 0.1)
    norms = {}
    for name, schedule in (("constant", "1@0"), ("growing", "2@0,4@{}")):
        args = [*default_args(tiny_corpus, tmp_path / name), *ARCH, *more]
        updates = len(list(epoch_batches(build_trainer([*args, "--cache-dir", tmp_path / f"{name}-0"]).trainer, 1)))
        training = build_trainer([*args, "--adv-radius-schedule", schedule.format(updates)])
        rows = run_epochs(training, 1, 2)
        norms[name] = [np.mean([row["adv_norm_src"] for row in part]) for part in (rows[:updates], rows[updates:])]
    assert norms["constant"] == pytest.approx([0.1, 0.1], rel=1e-2)
    assert norms["growing"] == pytest.approx([0.2, 0.4], rel=1e-2)
