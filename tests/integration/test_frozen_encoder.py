"""``--adv-freeze-encoder``: a head alone is trained on the features of an encoder that was tuned to another task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
import torch

from tests.integration.running import build_trainer, run_fairseq_train
from tests.integration.sentences import binarise_sentences, sentence_args

MODEL = ["--arch", "adv_roberta", "--dropout", "0.5", "--attention-dropout", "0.5"]
HEAD = ["--classification-head-name", "probe"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return binarise_sentences(tmp_path_factory.mktemp("sentences"))


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of an encoder that was trained with its own head."""
    folder = tmp_path_factory.mktemp("tuned")
    run_fairseq_train([*sentence_args(data, folder), *MODEL])
    return folder / "checkpoint_last.pt"


def weights(checkpoint: Path) -> Dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=False)["model"]


def job(data: Path, tuned: Path, folder: Path, *options: str) -> Any:
    return [*sentence_args(data, folder), *MODEL, *HEAD, "--finetune-from-model", tuned, *options]


def test_the_encoder_stays_bit_for_bit_and_a_new_head_learns(data: Path, tuned: Path, tmp_path: Path) -> None:
    run = run_fairseq_train(job(data, tuned, tmp_path, "--adv-freeze-encoder", "--max-epoch", "3", "--lr", "0.03"))
    before, after = weights(tuned), weights(tmp_path / "checkpoint_last.pt")
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder and all(torch.equal(before[name], after[name]) for name in encoder)
    heads = {name.split(".")[1] for name in after if name.startswith("classification_heads.")}
    assert heads == {"probe"}, "the head of the other task is left behind"
    losses = run.column("train_loss", "train")
    assert losses[-1] < losses[0]


def test_features_are_those_of_evaluation_and_gradients_are_the_heads(data: Path, tuned: Path, tmp_path: Path) -> None:
    for options, frozen in ((["--adv-freeze-encoder"], True), ([], False)):
        model = build_trainer(job(data, tuned, tmp_path / str(frozen), *options)).trainer.model.train()
        tokens = torch.tensor([[0, 5, 6, 7, 2]])
        features = [model(tokens, features_only=True)[0] for _ in range(2)]
        assert torch.equal(*features) is frozen, "dropout of a frozen encoder"
        model(tokens, classification_head_name="probe")[0].sum().backward()
        graded = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
        assert graded == ({"classification_heads"} if frozen else {"classification_heads", "encoder"})
