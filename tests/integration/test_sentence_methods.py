"""Every method on sentences through fairseq's own trainer: precisions, resume, micro-batches.

The methods come from the registry, so that a new one is tested as soon as it is registered. For several ranks
see ``test_sentence_matrix.py``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import torch

from fairseq_adv.criterions.heads.sentence import SentenceHead
from tests.integration.running import build_trainer, save_checkpoint
from tests.integration.sentences import binarise_sentences, sentence_args
from tests.integration.training import Trained, go_on, methods_of, train

METHODS = methods_of(SentenceHead)
# noise that shows, and a start that half-precision word embeddings do not round away
STRONG = {"r3f": "--r3f-sigma 0.1", "scala": "--scala-sigma 0.01", "simcut": "--simcut-p 0.2"}
FP16 = ["--fp16", "--memory-efficient-fp16", "--fp16-init-scale", "16"]
SGD = ["--dropout", "0", "--attention-dropout", "0", "--optimizer", "sgd", "--lr", "0.05"]
KINDS = {"classes": False, "numbers": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """Single sentences of three classes, and pairs with a number."""
    return {
        kind: binarise_sentences(tmp_path_factory.mktemp(kind), pairs=regression, regression=regression)
        for kind, regression in KINDS.items()
    }


def job(data: Dict[str, Path], kind: str, save_dir: Path, name: str, *options: Any) -> List[str]:
    words = [*sentence_args(data[kind], save_dir, KINDS[kind]), "--criterion", name]
    return [*words, *STRONG.get(name.split("_")[0], "").split(), *map(str, options)]


@pytest.fixture(scope="module")
def short_run(data: Dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    """(method, kind) -> its first three updates, trained once."""

    @functools.cache
    def run(name: str, kind: str) -> Trained:
        return train(job(data, kind, tmp_path_factory.mktemp("short"), name), 3)

    return run


@pytest.mark.parametrize("kind", ["classes", pytest.param("numbers", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", METHODS)
def test_amp_on_a_cpu_changes_nothing_and_half_precision_follows(data, tmp_path, short_run, name, kind):
    expected = short_run(name, kind).losses
    assert train(job(data, kind, tmp_path / "amp", name, "--amp"), 3).losses == pytest.approx(expected, rel=1e-6)
    half = train(job(data, kind, tmp_path / "half", name, *FP16), 3)
    assert next(half.training.model.parameters()).dtype == torch.float16
    assert half.losses == pytest.approx(expected, rel=2e-2)
    assert all(int(log["adv_nonfinite"]) == 0 for log in half.logs)


@pytest.mark.parametrize("kind", ["classes", pytest.param("numbers", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", METHODS)
def test_resume_in_the_middle_of_an_epoch(data, tmp_path, short_run, name, kind):
    words = job(data, kind, tmp_path, name)
    stopped = train(words, 2)
    save_checkpoint(stopped.training.trainer)
    assert stopped.losses + train(words, 1).losses == short_run(name, kind).losses


@pytest.mark.parametrize("kind", ["numbers", pytest.param("classes", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", METHODS)
def test_three_micro_batches_equal_one_large_batch(data, tmp_path, name, kind):
    """``--update-freq 3``, merged by hand into one batch."""
    options = [*SGD, "--update-freq", 3]
    expected = train(job(data, kind, tmp_path / "micro", name, *options), 2)
    large = build_trainer(job(data, kind, tmp_path / "large", name, *options))
    rows, own_step = large.task.dataset("train"), large.trainer.train_step

    def merged(group: Any) -> Any:
        return own_step([rows.collater([rows[i] for batch in group for i in batch["id"].tolist()])])

    large.trainer.train_step = merged
    large.task.present_size = lambda: 1  # what the iterator would say of the merged batch
    ours = go_on(large, 2)
    assert len(ours.losses) == 2 and ours.losses == pytest.approx(expected.losses, rel=1e-4)
    for parameter, value in expected.parameters().items():
        torch.testing.assert_close(ours.parameters()[parameter], value, rtol=1e-3, atol=1e-4, msg=parameter)
