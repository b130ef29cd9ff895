"""ARCH in real training runs: no strength is plain training, resume leaves no seam, bad input is named."""

from __future__ import annotations

import json
import shutil
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import torch

from fairseq_adv.cache import open_cache
from fairseq_adv.neighbors import choose_cache_set
from tests.integration.running import build_trainer, default_args, epoch_batches, run_fairseq_train, save_checkpoint

ARCH = ("--criterion", "arch_label_smoothed", "--cache-interval", 2, "--cache-proportion", 0.3)


def losses_and_parameters(args: List[Any], epochs: int) -> Tuple[List[float], List[torch.Tensor]]:
    """The loss of each update of *epochs* epochs, and the parameters after them."""
    training = build_trainer(args)
    losses = []
    for epoch in range(1, epochs + 1):
        for samples in epoch_batches(training.trainer, epoch):
            losses.append(training.trainer.train_step(samples)["loss"])
    return losses, [p.detach().clone() for p in training.model.parameters()]


@pytest.mark.parametrize("options", [("--adv-lambda", 0), ("--adv-eps", 0, "--adv-outer-masks", "shared")])
@pytest.mark.parametrize("task", ["translation", "adversarial_translation"])
def test_no_strength_is_plain_training_bit_for_bit(tiny_corpus, tmp_path, options, task):
    common = ("--dropout", 0.2, "--update-freq", 2, "--task", task)
    plain = losses_and_parameters([*default_args(tiny_corpus, tmp_path / "plain"), *common], epochs=2)
    arch = losses_and_parameters([*default_args(tiny_corpus, tmp_path / "arch"), *common, *ARCH, *options], epochs=2)
    assert plain[0] == arch[0] and len(plain[0]) > 8
    assert all(torch.equal(a, b) for a, b in zip(plain[1], arch[1]))


def trace(args: List[Any], epochs: int, stop: Tuple[int, int] = (0, 0)) -> List[Dict[str, float]]:
    """The log of each update; after update *stop* = (epoch, number within it) the run saves and is started anew."""
    training = build_trainer(args)
    rows, epoch = [], 1
    while epoch <= epochs:
        for number, samples in enumerate(epoch_batches(training.trainer, epoch), start=1):
            rows.append(dict(training.trainer.train_step(samples)))
            if (epoch, number) == stop:
                save_checkpoint(training.trainer)
                training.criterion.perturbations.cache.close()
                training = build_trainer(args)
                stop = (0, 0)
                break
        else:
            save_checkpoint(training.trainer)
            epoch += 1
    return rows


@pytest.mark.parametrize("stop", [(1, 4), (2, 3), (3, 5)], ids=["in-refresh", "between", "in-second-refresh"])
@pytest.mark.parametrize("task", ["translation", "adversarial_translation"])
def test_resume_inside_an_epoch_leaves_no_seam(tiny_corpus, tmp_path, stop, task):
    more = ("--dropout", 0.2, "--max-epoch", 4, "--save-interval-updates", 1, "--cache-ema", 0.3, "--task", task)
    runs = []
    for name, where in (("whole", (0, 0)), ("resumed", stop)):
        rows = trace([*default_args(tiny_corpus, tmp_path / name), *ARCH, *more], epochs=4, stop=where)
        reader = open_cache(tmp_path / name / "perturbations")
        cached = [reader.read(reader.ids, side) for side in ("src", "tgt")]
        runs.append((rows, reader.ids.tolist(), cached))
    keys = ("loss", "nll_loss", "adv_loss", "adv_norm_src", "adv_cached", "adv_refresh")
    for whole, resumed in zip(runs[0][0], runs[1][0]):
        assert {k: whole[k] for k in keys} == {k: resumed[k] for k in keys}
    assert len(runs[0][0]) == len(runs[1][0]) and runs[0][1] == runs[1][1]
    for one_side, other in zip(runs[0][2], runs[1][2]):
        assert all(torch.equal(a, b) for a, b in zip(one_side, other))


@pytest.mark.parametrize("before", [(), ("--adv-lambda", 0)], ids=["waiting", "plain"])
def test_a_resume_inside_an_epoch_begins_no_refresh_there(tiny_corpus, tmp_path, before):
    """Update 14, from which the method is on, lies in the epoch that is resumed: the first whole one is the next."""
    late = [*default_args(tiny_corpus, tmp_path), *ARCH, "--adv-start-update", 14, "--save-interval-updates", 1]
    first = build_trainer([*late, *before])
    for epoch in (1, 2):
        for number, samples in enumerate(epoch_batches(first.trainer, epoch), start=1):
            first.trainer.train_step(samples)
            if (epoch, number) == (2, 6):
                break
        save_checkpoint(first.trainer)
    if not before:
        first.criterion.perturbations.cache.close()
    resumed = build_trainer(late)
    shares = {
        epoch: [
            dict(resumed.trainer.train_step(samples))["adv_refresh"]
            for samples in epoch_batches(resumed.trainer, epoch)
        ]
        for epoch in (2, 3)
    }
    assert set(shares[2]) == {0} and set(shares[3]) == {1}
    resumed.criterion.perturbations.commit()
    assert resumed.criterion.perturbations.coverage().complete


def test_log_columns_and_the_share_that_is_cached(tiny_corpus, tmp_path):
    run = run_fairseq_train([*default_args(tiny_corpus, tmp_path / "run"), *ARCH, "--max-epoch", 2])
    updates, epochs, valid = run.log["train_inner"], run.log["train"], run.log["valid"]
    columns = ("adv_loss", "adv_norm_src", "adv_norm_tgt", "adv_refresh", "adv_cached", "adv_nonfinite")
    assert all(column in line for line in updates for column in columns)
    assert [line["train_adv_refresh"] for line in epochs] == [1, 0]
    assert epochs[0]["train_adv_norm_src"] == pytest.approx(0.1, abs=1e-3)
    members = len(choose_cache_set(160, 0.3, 1))
    assert epochs[1]["train_adv_cached"] == pytest.approx(members / 160, abs=1e-3)
    assert not any(key.startswith("valid_adv") for line in valid for key in line)
    assert "RANDOM" in run.stdout + run.stderr and "fairseq-adv neighbors" in run.stdout + run.stderr


# ---- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [("--adv-eps", -1), ("--adv-steps", -3), ("--adv-step-size", 0), ("--cache-proportion", 0),
     ("--cache-proportion", 1.5), ("--cache-ema", 1), ("--cache-interval", 0), ("--cache-num-neighbors", 0)],
)  # fmt: skip
def test_wrong_options_are_named(tiny_corpus, tmp_path, option, value):
    with pytest.raises(ValueError, match=f"{option} must be .*, got {float(value):g}"):
        build_trainer([*default_args(tiny_corpus, tmp_path), *ARCH, option, value])


@pytest.mark.parametrize(
    ("options", "change"),
    [(("--adv-eps", 0.2), "--adv-eps: 0.1 -> 0.2"), (("--cache-proportion", 0.2), "--cache-proportion: 0.3 -> 0.2"),
     (("--cache-num-neighbors", 2), "--cache-num-neighbors: 1 -> 2"),
     (("--cache-dtype", "int8"), "--cache-dtype: fp16 -> int8"),
     (("--encoder-embed-dim", 32, "--decoder-embed-dim", 32), "--encoder-embed-dim: 16 -> 32")],
)  # fmt: skip
def test_cache_of_another_configuration_is_refused_with_the_option(tiny_corpus, tmp_path, options, change):
    shared = ("--cache-dir", tmp_path / "cache")
    first = build_trainer([*default_args(tiny_corpus, tmp_path / "a"), *ARCH, *shared])
    first.criterion.perturbations.cache.close()
    with pytest.raises(OSError, match=rf"another configuration.*{change}"):
        build_trainer([*default_args(tiny_corpus, tmp_path / "b"), *ARCH, *shared, *options])


def test_neighbor_file_of_other_data_is_refused(tiny_corpus, tmp_path):
    from fairseq_adv.cli.main import main

    path = tmp_path / "neighbors.safetensors"
    assert main(["neighbors", str(tiny_corpus), "--output", str(path), "--embeddings", "random"]) == 0
    use = (*ARCH, "--cache-neighbors", path, "--cache-num-neighbors", 2, "--cache-proportion", 0.1)
    build_trainer([*default_args(tiny_corpus, tmp_path / "same"), *use]).criterion.perturbations.cache.close()
    other = tmp_path / "other"
    text = tmp_path / "text"
    shutil.copytree(tiny_corpus.parent / "text", text)
    for language in ("en", "de"):
        lines = (text / f"train.{language}").read_text().splitlines()
        (text / f"train.{language}").write_text("\n".join(lines[1:]) + "\n")
    from fairseq_cli import preprocess

    parser_args = ["--source-lang", "en", "--target-lang", "de", "--joined-dictionary", "--destdir", str(other)]
    parser_args += [f"--{split}pref={text / split}" for split in ("train", "valid", "test")]
    from fairseq import options

    preprocess.main(options.get_preprocessing_parser().parse_args(parser_args))
    with pytest.raises(ValueError, match=r"neighbors\.safetensors.*num_samples"):
        build_trainer([*default_args(other, tmp_path / "different"), *use])


def test_sample_ids_beyond_the_data_set_are_named(tiny_corpus, tmp_path):
    training = build_trainer([*default_args(tiny_corpus, tmp_path), *ARCH])
    samples = next(epoch_batches(training.trainer, 1))
    samples[0]["id"] = samples[0]["id"] + 10_000
    del samples[0]["adv_known"]
    with pytest.raises(ValueError, match=r"sample id 10\d+ is beyond the data set"):
        training.task.train_step(
            samples[0], training.trainer.model.train(), training.criterion, training.trainer.optimizer, 0
        )


def test_one_name_for_training_and_validation_is_refused(tiny_corpus, tmp_path):
    with pytest.raises(ValueError, match=r"--train-subset train is also a --valid-subset"):
        build_trainer([*default_args(tiny_corpus, tmp_path), *ARCH, "--valid-subset", "train"])


def test_checkpoint_names_the_cache_in_plain_containers(tiny_corpus, tmp_path):
    run_fairseq_train([*default_args(tiny_corpus, tmp_path), *ARCH])
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=False)["extra_state"]["TranslationTask"]
    cache = json.loads(json.dumps(state["fairseq_adv"]["cache"]))
    assert cache["committed"]["generation"] == 1 and cache["in_progress"] is None
    assert np.array_equal(open_cache(tmp_path / "perturbations", generation=1).ids, choose_cache_set(160, 0.3, 1))


def test_auto_starts_after_the_plateau_and_resumes_there(tiny_corpus, tmp_path):
    auto = (*ARCH, "--adv-start-update", "auto:1", "--lr", 0)  # nothing gets better at lr 0

    def refreshed(name: str, *budgets: int) -> List[int]:
        runs = [
            run_fairseq_train([*default_args(tiny_corpus, tmp_path / name), *auto, "--max-epoch", epochs])
            for epochs in budgets
        ]
        return [int(line["epoch"]) for run in runs for line in run.log["train"] if line["train_adv_refresh"] == 1]

    assert refreshed("whole", 5) == [3, 5] == refreshed("resumed", 2, 5)


@pytest.mark.parametrize(("epsilon", "told"), [(0.01, True), (1.0, False)])
def test_half_precision_that_rounds_perturbations_away_is_told(tiny_corpus, tmp_path, caplog, epsilon, told):
    args = [*default_args(tiny_corpus, tmp_path), *ARCH, "--memory-efficient-fp16", "--adv-eps", epsilon]
    build_trainer(args).criterion.perturbations.cache.close()
    assert ("too small to change float16 word embeddings" in caplog.text) == told
