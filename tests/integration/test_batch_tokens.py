"""``--target-batch-tokens`` and its schedule in real trainings on 1, 2 and 4 ranks, through resumes, and its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch

from tests.integration.resume_on_ranks import in_parts, train_on_ranks
from tests.integration.running import build_trainer, default_args, run_fairseq_train
from tests.integration.training import go_on

TARGET = 80
MAX_TOKENS = (30, 50, 80)
RANKS = (1, 2, 4)
SCHEDULE = "80@0,160@7,60@12,240@14"
SGD = ["--dropout", "0", "--optimizer", "sgd", "--lr", "0.2"]
# a random start that is not small, so that its generators count; late, and every other update
SCALA = ["--criterion", "scala_label_smoothed", "--scala-sigma", 0.1, "--scala-radius", 1]
SCALA += ["--adv-start-update", 3, "--adv-every", 2]


def job(data: Path, save_dir: Path, *options: Any) -> List[str]:
    words = [*default_args(data, save_dir), *SGD, "--task", "adversarial_translation", "--max-tokens", "50"]
    return [*words, *(str(option) for option in options)]


@pytest.fixture(scope="module")
def runs(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[Any, Dict[str, Any]]:
    """(ranks, what) -> an epoch; *what* is a value of ``--max-tokens``, the schedule straight or resumed, or scala."""
    result = {}
    for ranks in RANKS:
        directory = tmp_path_factory.mktemp(f"ranks{ranks}")
        jobs: Dict[Any, Dict[str, Any]] = {}
        for tokens in MAX_TOKENS:
            args = job(tiny_corpus, directory / str(tokens), "--target-batch-tokens", TARGET, "--max-tokens", tokens)
            jobs[tokens] = {"args": args}
        for name, stops in (("straight", []), ("resumed", [5, 13])):
            args = job(tiny_corpus, directory / name, "--batch-tokens-schedule", SCHEDULE)
            jobs[name] = {"args": args, "stops": stops}
        args = job(tiny_corpus, directory / "scala", *SCALA, "--target-batch-tokens", TARGET)
        jobs["scala"] = {"args": args}
        if ranks == 1:
            outcomes = [in_parts(each["args"], each.get("stops", [])) for each in jobs.values()]
        else:
            outcomes = train_on_ranks(ranks, list(jobs.values()), directory)
        result.update({(ranks, what): outcome for what, outcome in zip(jobs, outcomes)})
    return result


def test_mean_batch_and_number_of_updates(runs):
    counts = []
    for ranks in RANKS:
        for tokens in MAX_TOKENS:
            batches = runs[ranks, tokens]["batch_tokens"]
            counts.append(len(batches))
            assert abs(sum(batches) / len(batches) / TARGET - 1) < 0.03
            assert runs[ranks, tokens]["targets"] == [TARGET] * len(batches)
    assert max(counts) - min(counts) <= 2 and min(counts) > 20


@pytest.mark.parametrize("tokens", MAX_TOKENS)
@pytest.mark.parametrize("ranks", RANKS[1:])
def test_any_number_of_ranks_trains_the_same(runs, ranks, tokens):
    """Updates of one to three micro-batches: on four ranks there is a dummy batch in each of them."""
    one, several = runs[1, tokens], runs[ranks, tokens]
    assert several["batch_tokens"] == one["batch_tokens"]
    assert several["losses"] == pytest.approx(one["losses"], rel=1e-4)
    for name, value in one["parameters"].items():
        torch.testing.assert_close(several["parameters"][name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_scalas_noise_is_the_samples_own_on_any_number_of_ranks(runs, ranks):
    """Fairseq gives every rank the same seed; δ follows from (seed, epoch, sample), and its gradient stays local."""
    one, several, plain = runs[1, "scala"], runs[ranks, "scala"], runs[1, 50]
    assert one["losses"][:3] == plain["losses"][:3] and one["losses"][3] > plain["losses"][3] * 1.001
    assert several["losses"] == pytest.approx(one["losses"], rel=1e-4)
    for name, value in one["parameters"].items():
        torch.testing.assert_close(several["parameters"][name], value, rtol=0, atol=1e-5, msg=name)


def test_micro_batches_of_another_size_are_other_batches(runs):
    assert runs[1, 30]["batch_tokens"] != runs[1, 80]["batch_tokens"]


@pytest.mark.parametrize("ranks", RANKS)
def test_schedule_changes_the_batch_at_the_stated_updates(runs, ranks):
    straight = runs[ranks, "straight"]
    expected = [80] * 7 + [160] * 5 + [60] * 2
    assert straight["targets"] == (expected + [240] * 20)[: len(straight["targets"])]
    assert len(straight["targets"]) > 15
    for tokens, target in zip(straight["batch_tokens"], straight["targets"]):
        assert abs(tokens - target) <= 50


@pytest.mark.parametrize("ranks", RANKS)
def test_schedule_across_resumes(runs, ranks):
    resumed, straight = runs[ranks, "resumed"], runs[ranks, "straight"]
    for key in ("losses", "norms", "batch_tokens", "targets"):
        assert resumed[key] == straight[key]


def test_schedule_goes_on_in_the_next_epoch_and_the_learning_rate_follows(tiny_corpus, tmp_path):
    schedule = "--batch-tokens-schedule 240@0,480@10 --lr-scheduler inverse_sqrt_batch --lr-base-batch-tokens 240"
    args = job(tiny_corpus, tmp_path, *schedule.split(), "--lr-batch-power", 1, "--lr-warmup-updates", 1)
    training = build_trainer(args)
    targets, rates = [], []
    own_step = training.trainer.train_step

    def remember(batches: Any) -> Any:
        rates.append(training.trainer.get_lr())
        return own_step(batches)

    training.trainer.train_step = remember
    for epoch in (1, 2):
        targets += [log["batch_tokens_target"] for log in go_on(training, epoch=epoch).logs]
    assert targets == [240] * 10 + [480] * (len(targets) - 10) and len(targets) > 11
    expected = [0.2 * (target / 240) / max(1, update) ** 0.5 for update, target in enumerate(targets)]
    assert rates[1:] == pytest.approx(expected[1:])


def test_logs_of_fairseq_train(tiny_corpus, tmp_path):
    run = run_fairseq_train(job(tiny_corpus, tmp_path, "--target-batch-tokens", "0.4k", "--disable-validation"))
    tokens, targets = run.column("batch_tokens"), run.column("batch_tokens_target")
    assert len(tokens) == len(targets) > 3 and set(targets) == {400}
    assert run.column("batch_tokens", "train") == pytest.approx([sum(tokens) / len(tokens)], abs=0.06)
    assert all("batch_tokens" not in key for line in run.log.get("valid", []) for key in line)


def test_validation_has_no_batch(tiny_corpus, tmp_path):
    training = build_trainer(job(tiny_corpus, tmp_path, "--target-batch-tokens", 400))
    batch = next(iter(training.trainer.get_valid_iterator("valid").next_epoch_itr(shuffle=False)))
    assert "batch_tokens" not in training.trainer.valid_step(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--target-batch-tokens 40",
            r"target of 40 tokens .*below one micro-batch of \d+ .*--max-tokens to at most 40",
        ),
        ("--target-batch-tokens 32q", r"--target-batch-tokens must be a whole number .*got '32q'"),
        ("--target-batch-tokens -5", r"--target-batch-tokens must be .*got '-5'"),
        ("--batch-tokens-schedule 32k@5", r"--batch-tokens-schedule '32k@5'.*hold from update 0"),
        ("--batch-tokens-schedule 400@0 --target-batch-tokens 400", r"both set the batch: drop one"),
        ("--target-batch-tokens 400 --update-freq 2", r"--update-freq 2 .*--target-batch-tokens.*drop one"),
        ("--target-batch-tokens 400 --valid-subset train", r"--valid-subset .*'train'"),
        ("--target-batch-tokens 400 --num-batch-buckets 3", r"--num-batch-buckets 3"),
        ("--target-batch-tokens 400 --grouped-shuffling", r"--grouped-shuffling"),
    ],
)
def test_refusals(tiny_corpus, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        go_on(build_trainer(job(tiny_corpus, tmp_path, *options.split())), 1)
