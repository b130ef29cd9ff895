"""``fairseq-adv neighbors`` on the data that a training run would see: its options behind ``--``, its task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.neighbor_lists import neighbors
from tests.integration.running import (
    build_trainer,
    default_args,
)


def with_a_second_part(corpus: Path, directory: Path) -> Path:
    """The corpus with its training data twice, as ``train`` and ``train1``."""
    shutil.copytree(corpus, directory)
    for path in list(directory.glob("train.*")):
        shutil.copy(path, directory / path.name.replace("train.", "train1."))
    return directory


def as_raw_text(corpus: Path, directory: Path) -> Path:
    """What ``fairseq-preprocess --dataset-impl raw`` leaves: text under the names of binarised files."""
    directory.mkdir()
    for lang in ("en", "de"):
        shutil.copy(corpus / f"dict.{lang}.txt", directory)
        for split in ("train", "valid"):
            shutil.copy(corpus.parent / "text" / f"{split}.{lang}", directory / f"{split}.en-de.{lang}")
    return directory


@pytest.mark.parametrize(
    ("make", "options", "pairs"),
    [
        (with_a_second_part, ["--upsample-primary", 3], 640),
        (as_raw_text, ["--dataset-impl", "raw"], 160),
        (None, ["--truncate-source", "--max-source-positions", 6], 160),
        (None, ["--max-source-positions", 9, "--skip-invalid-size-inputs-valid-test"], 160),
    ],
    ids=["upsample-primary", "raw", "truncate-source", "too-long"],
)
def test_options_of_the_training_run_reach_the_data(tiny_corpus, tmp_path, make, options, pairs, capsys):
    data = tiny_corpus if make is None else make(tiny_corpus, tmp_path / "data")
    train = [w for w in default_args(data, tmp_path / "run") if w != str(data)]
    path, use = tmp_path / "lists", ["--criterion", "arch_label_smoothed", "--cache-neighbors", tmp_path / "lists"]
    assert neighbors(data, "--output", path, "--embeddings", "random", "--json", "--", *train, *options) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pairs"] == pairs
    training = build_trainer([data, *train, *options, *use])
    lists, dataset = training.criterion.perturbations.neighbors, training.task.dataset("train")
    assert lists.num_samples == len(dataset) == pairs
    longest = 9 if "--skip-invalid-size-inputs-valid-test" in options else 99
    fits = (dataset.src_sizes <= longest) & (dataset.tgt_sizes <= 1024)
    assert fits[lists.cache_ids].all() and len(lists.cache_ids) == round(0.1 * fits.sum())


def test_a_file_of_other_options_is_refused_with_the_way_out(tiny_corpus, tmp_path):
    path, truncated = tmp_path / "lists", ("--truncate-source", "--max-source-positions", 6)
    assert neighbors(tiny_corpus, "--output", path, "--embeddings", "random") == 0
    use = ("--criterion", "arch_label_smoothed", "--cache-neighbors", path, *truncated)
    with pytest.raises(ValueError, match=r"differs .* in src_sizes .*the options of fairseq-train behind --"):
        build_trainer([*default_args(tiny_corpus, tmp_path / "run"), *use])
    assert neighbors(tiny_corpus, "--output", path, "--embeddings", "random", "--", *truncated) == 0
    build_trainer([*default_args(tiny_corpus, tmp_path / "run"), *use])


def test_a_task_without_sentence_pairs_is_refused_by_name(tiny_corpus, tmp_path, capsys):
    shutil.copytree(tiny_corpus, tmp_path / "data")
    for path in list((tmp_path / "data").glob("train.en-de.en.*")):
        shutil.copy(path, path.with_name(path.name.replace(".en-de.en", "")))
    shutil.copy(tiny_corpus / "dict.en.txt", tmp_path / "data" / "dict.txt")
    words = [tmp_path / "data", "--output", tmp_path / "lists", "--embeddings", "random"]
    assert neighbors(*words, "--", "--task", "language_modeling") == 2
    assert "of LanguageModelingTask does not tell the sizes" in capsys.readouterr().err.replace("\n", " ")
