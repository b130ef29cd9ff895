"""``fairseq-adv neighbors`` on the data of a sentence task: rows of one side, and the labels in their fingerprint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
import torch

from fairseq_adv.data.training_corpus import open_sentence_corpus
from fairseq_adv.neighbors import choose_cache_set, load_neighbors, random_neighbors
from tests.integration.neighbor_lists import assert_nearest, neighbors, unit_means
from tests.integration.running import build_trainer, epoch_batches, save_checkpoint
from tests.integration.sentences import binarise_sentences, sentence_args

ARCH = ["--criterion", "arch_sentence_prediction"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """Single sentences of three classes, and pairs with a number."""
    return {
        "classes": binarise_sentences(tmp_path_factory.mktemp("classes")),
        "numbers": binarise_sentences(tmp_path_factory.mktemp("numbers"), pairs=True, regression=True),
    }


@pytest.fixture(scope="module")
def checkpoint(data: Dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What fairseq-train writes after one update."""
    directory = tmp_path_factory.mktemp("checkpoint")
    trainer = build_trainer(sentence_args(data["classes"], directory)).trainer
    trainer.train_step(next(epoch_batches(trainer, 1)))
    save_checkpoint(trainer)
    return directory / "checkpoint_last.pt"


def words_of_rows(training: Any) -> List[List[int]]:
    """Dictionary indices of each row's words by its id, from the batches that training sees."""
    rows: Dict[int, List[int]] = {}
    for samples in epoch_batches(training.trainer, 1):
        for i, row in zip(samples[0]["id"].tolist(), samples[0]["net_input"]["src_tokens"].tolist()):
            rows[i] = [word for word in row if word > 3]
    return [rows[i] for i in range(len(rows))]


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_embeddings_of_a_checkpoint_of_an_encoder(data, checkpoint, tmp_path, kind, capsys):
    path = tmp_path / "lists"
    options = ["--num-neighbors", 3, "--proportion", 0.2, "--search", "torch"]
    source = f"fairseq:{checkpoint}" if kind == "classes" else "random"  # pairs have a dictionary of their own
    assert neighbors(data[kind], "--output", path, "--embeddings", source, *options, "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["pairs"], facts["cached"], "tgt" in facts) == (160, 32, False)
    use = ["--cache-neighbors", str(path), "--cache-proportion", "0.2", "--cache-num-neighbors", "2"]
    training = build_trainer([*sentence_args(data[kind], tmp_path / "run", kind == "numbers"), *ARCH, *use])
    lists = training.criterion.perturbations.neighbors
    assert lists.cache_ids.tolist() == choose_cache_set(160, 0.2, 1).tolist() and lists.num_neighbors == 2
    if kind == "classes":
        weight = torch.load(checkpoint, weights_only=False)["model"]["encoder.sentence_encoder.embed_tokens.weight"]
        assert_nearest(path, "src", unit_means(words_of_rows(training), weight.numpy()), k=3)
    else:
        expected = random_neighbors(160, 0.2, 2, seed=1)
        assert np.array_equal(lists.lookup(np.arange(160), "src"), expected.lookup(np.arange(160), "src"))


def test_other_labels_are_refused_by_name(data, tmp_path):
    path = tmp_path / "lists"
    assert neighbors(data["numbers"], "--output", path, "--embeddings", "random") == 0
    other = tmp_path / "other"
    shutil.copytree(data["numbers"], other)
    numbers = (other / "label" / "train.label").read_text().splitlines()
    (other / "label" / "train.label").write_text("\n".join(["9.5", *numbers[1:]]) + "\n")
    load_neighbors(path, expected=open_sentence_corpus(data["numbers"], []).fingerprint)
    use = [*ARCH, "--cache-neighbors", str(path)]
    with pytest.raises(ValueError, match=r"differs from the training data in labels \("):
        build_trainer([*sentence_args(other, tmp_path / "run", regression=True), *use])
    first = build_trainer([*sentence_args(data["numbers"], tmp_path / "a", regression=True), *ARCH])
    first.criterion.perturbations.cache.close()
    cache = ["--cache-dir", str(tmp_path / "a" / "perturbations")]
    with pytest.raises(OSError, match=r"another configuration.*labels in DATA"):
        build_trainer([*sentence_args(other, tmp_path / "b", regression=True), *ARCH, *cache])


def test_rows_that_are_too_long_to_be_trained_are_not_cached(data, tmp_path):
    limit = ["--max-positions", "11", "--skip-invalid-size-inputs-valid-test"]
    path = tmp_path / "lists"
    assert neighbors(data["classes"], "--output", path, "--embeddings", "random", "--", *limit) == 0
    use = [*ARCH, "--cache-neighbors", str(path)]
    training = build_trainer([*sentence_args(data["classes"], tmp_path / "run"), *limit, *use])
    rows, lists = training.task.dataset("train"), training.criterion.perturbations.neighbors
    fits = rows.src_sizes <= 11
    assert 0 < fits.sum() < 160 and fits[lists.cache_ids].all() and len(lists.cache_ids) == round(0.1 * fits.sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--src-embeddings", "random", "--tgt-embeddings", "random"], "--tgt-embeddings random: rows of a sentence"),
        ([], "give --embeddings SOURCE"),
        (["--embeddings", "random", "--train-subset", "dev"], "no rows"),
        (["--embeddings", "random", "--", "--num-classes", "2"], "--num-classes 2, but label/dict.txt has 3"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(data, tmp_path, capsys, options, message):
    assert neighbors(data["classes"], "--output", tmp_path / "lists", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and not (tmp_path / "lists").exists()
