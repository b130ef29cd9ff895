"""``fairseq-adv neighbors`` on binarised text: each source of embeddings against an exhaustive search in the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from fairseq_adv.neighbors import choose_cache_set, load_neighbors, random_neighbors
from tests.integration.neighbor_lists import assert_nearest, neighbors, unit_means
from tests.integration.running import (
    build_trainer,
    command_path,
    default_args,
    epoch_batches,
    run_command,
    save_checkpoint,
)

# Segmented as subword-nmt does. Pair 3 repeats pair 0; the source of pair 9 has no word that the model knows.
PAIRS: List[Tuple[str, str]] = [
    ("the cat sleeps on the war@@ m roof .", "die Katze schläft auf dem war@@ men Dach ."),
    ("two dogs run through the park .", "zwei Hunde laufen durch den Park ."),
    ("the roof is war@@ m today .", "das Dach ist heute warm ."),
    ("the cat sleeps on the war@@ m roof .", "die Katze schläft auf dem war@@ men Dach ."),
    ("a train leaves the sta@@ tion at noon .", "ein Zug verlässt mittags den Bahnhof ."),
    ("the dogs sleep in the park .", "die Hunde schlafen im Park ."),
    ("at noon the train is late .", "mittags hat der Zug Verspätung ."),
    ("who runs through the sta@@ tion ?", "wer läuft durch den Bahnhof ?"),
    ("today the cat runs .", "heute läuft die Katze ."),
    ("zzz", "hm"),
    ("the park is war@@ m .", "der Park ist warm ."),
    ("the train sleeps ?", "der Zug schläft ?"),
    ("two trains leave today .", "zwei Züge fahren heute ab ."),
    ("the sta@@ tion has a roof .", "der Bahnhof hat ein Dach ."),
]
# the word pieces of the tiny BERT; duplicates would make its tokenizer choose another row than a list does
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s"]
VOCABULARY += sorted({"the", "cat", "dog", "sleep", "on", "warm", "roof", "two", "run", "through", "park", "today"})
VOCABULARY += ["a", "at", "in", "is", "noon", "station", "train", "who", ".", "?"]


@pytest.fixture(scope="module")
def pairs_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PAIRS binarised, with a dictionary for each side."""
    from fairseq import options
    from fairseq_cli import preprocess

    directory = tmp_path_factory.mktemp("pairs")
    for column, lang in enumerate(("en", "de")):
        text = "".join(f"{pair[column]}\n" for pair in PAIRS)
        (directory / f"train.{lang}").write_text(text, encoding="utf-8")
    words = ["--source-lang", "en", "--target-lang", "de", "--trainpref", str(directory / "train")]
    words += ["--destdir", str(directory / "bin")]
    preprocess.main(options.get_preprocessing_parser().parse_args(words))
    return directory / "bin"


@pytest.fixture(scope="module")
def checkpoint(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What fairseq-train writes after one update of a model with an embedding matrix for each side."""
    directory = tmp_path_factory.mktemp("checkpoint")
    trainer = build_trainer([w for w in default_args(tiny_corpus, directory) if w != "--share-all-embeddings"]).trainer
    trainer.train_step(next(epoch_batches(trainer, 1)))
    save_checkpoint(trainer)
    return directory / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few words: configuration, word-piece tokenizer, and nothing but word embeddings."""
    pytest.importorskip("transformers")
    directory = tmp_path_factory.mktemp("bert")
    (directory / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(VOCABULARY)}))
    (directory / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY), encoding="utf-8")
    tokenizer = dict(tokenizer_class="BertTokenizer", do_lower_case=True, strip_accents=False)
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    weight = torch.randn(len(VOCABULARY), 6, generator=torch.Generator().manual_seed(2))
    save_file({"bert.embeddings.word_embeddings.weight": weight}, directory / "model.safetensors")
    return directory


def words_of(corpus: Path, lang: str) -> List[List[int]]:
    """Dictionary indices of the training text of *lang*, from the dictionary file: its lines start at index 4."""
    symbols = [line.split()[0] for line in (corpus / f"dict.{lang}.txt").read_text(encoding="utf-8").splitlines()]
    text = (corpus.parent / "text" / f"train.{lang}").read_text(encoding="utf-8").splitlines()
    return [[4 + symbols.index(word) for word in line.split()] for line in text]


@pytest.mark.parametrize("search", ["torch", "faiss"])
def test_embeddings_of_a_checkpoint(tiny_corpus, checkpoint, tmp_path, search, capsys):
    if search == "faiss":
        pytest.importorskip("faiss")
    path = tmp_path / "lists" / "neighbors.safetensors"
    options = ["--embeddings", f"fairseq:{checkpoint}", "--search", search, "--num-neighbors", 3, "--proportion", 0.2]
    assert neighbors(tiny_corpus, "--output", path, *options, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["pairs"], facts["cached"], facts["src"]["search"]) == (160, 32, search)
    model = torch.load(checkpoint, weights_only=False)["model"]
    for side, lang, network in (("src", "en", "encoder"), ("tgt", "de", "decoder")):
        weight = model[f"{network}.embed_tokens.weight"].numpy()
        assert_nearest(path, side, unit_means(words_of(tiny_corpus, lang), weight), k=3)
        nearest = load_file(path)[f"{side}.cosine"][:, 0].mean()
        assert facts[side]["mean_cosine"] == pytest.approx(nearest, abs=1e-4)


def test_a_training_task_accepts_the_file_and_another_one_does_not(tiny_corpus, pairs_corpus, tmp_path):
    from fairseq_adv.data.binarised import open_corpus

    path = tmp_path / "neighbors.safetensors"
    assert neighbors(tiny_corpus, "--output", path, "--embeddings", "random") == 0
    read = load_neighbors(path, num_neighbors=2, expected=open_corpus(tiny_corpus).fingerprint)
    expected = random_neighbors(160, 0.1, 2, seed=1)
    assert read.cache_ids.tolist() == choose_cache_set(160, 0.1, 1).tolist()
    for side in ("src", "tgt"):
        assert np.array_equal(read.lookup(np.arange(160), side), expected.lookup(np.arange(160), side))
    assert np.isnan(load_file(path)["src.cosine"]).all()
    with pytest.raises(ValueError, match=r"num_samples \(160 against 14\)"):
        load_neighbors(path, expected=open_corpus(pairs_corpus).fingerprint)


def bert_words(sentences: Sequence[str]) -> List[List[int]]:
    """Rows of the tiny BERT for sentences of its words, with a plural or an m as a piece of its own."""
    rows = []
    for sentence in sentences:
        pieces: List[str] = []
        for word in sentence.replace("@@ ", "").lower().split():
            for stem, rest in ((word, []), (word[:-1], [f"##{word[-1]}"])):
                if stem in VOCABULARY:
                    pieces += [stem, *(r for r in rest)] if all(r in VOCABULARY for r in rest) else []
                    break
        rows.append([VOCABULARY.index(piece) for piece in pieces])
    return rows


def test_embeddings_of_a_bert_on_the_source_and_random_on_the_target(pairs_corpus, tiny_bert, tmp_path, capsys):
    path = tmp_path / "neighbors.safetensors"
    options = ["--src-embeddings", f"hf:{tiny_bert}", "--tgt-embeddings", "random", "--remove-bpe"]
    options += ["--proportion", "0.5", "--num-neighbors", "2", "--seed", "3", "--batch-size", "4"]
    assert neighbors(pairs_corpus, "--output", path, *options) == 0
    output = capsys.readouterr()
    assert "14 pairs, 2 neighbors of 7" in output.out
    assert "neighbors of src" in output.err  # the progress bar
    from safetensors.torch import load_file as load_torch

    weight = load_torch(tiny_bert / "model.safetensors")["bert.embeddings.word_embeddings.weight"].numpy()
    rows = bert_words([pair[0] for pair in PAIRS])
    assert rows[0] == rows[3] != []
    assert rows[9] == []
    assert_nearest(path, "src", unit_means(rows, weight), k=2)
    assert load_neighbors(path).source == {"src": f"hf:{tiny_bert}", "tgt": "random"}


def test_pieces_without_remove_bpe_are_warned_about(pairs_corpus, tiny_bert, tmp_path, capsys):
    path = tmp_path / "neighbors.safetensors"
    assert neighbors(pairs_corpus, "--output", path, "--embeddings", f"hf:{tiny_bert}", "--num-neighbors", 1) == 0
    assert "without --remove-bpe" in capsys.readouterr().err


def test_the_console_command(tiny_corpus, tmp_path):
    words = [command_path("fairseq-adv"), "neighbors", tiny_corpus, "--output", "lists", "--embeddings", "random"]
    run = run_command(words, cwd=tmp_path)
    assert "160 pairs, 5 neighbors of 16" in run.stdout
    failed = run_command([*words, "--num-neighbors", 17], cwd=tmp_path, check=False)
    assert failed.returncode == 2
    assert "17 neighbors asked for, but only 16 pairs are cached" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --embeddings SOURCE"),
        (["--src-embeddings", "random"], "--tgt-embeddings SOURCE"),
        (["--embeddings", "word2vec"], "unknown source of embeddings 'word2vec'"),
        (["--embeddings", "hf:"], "unknown source of embeddings 'hf:'"),
        (["--embeddings", "random", "--proportion", "0"], "--proportion must be in (0, 1], got 0.0"),
        (["--embeddings", "random", "--num-neighbors", "0"], "--num-neighbors must be >= 1, got 0"),
        (["--embeddings", "random", "--batch-size", "0"], "--batch-size must be >= 1, got 0"),
        (["--embeddings", "random", "--num-neighbors", "17"], "17 neighbors asked for, but only 16 pairs are cached"),
        (["--embeddings", "random", "--train-subset", "dev"], "Dataset not found: dev"),
        (["--embeddings", "fairseq:none.pt"], "no checkpoint none.pt"),
        (["--embeddings", "fairseq:CHECKPOINT", "--device", "tpu9"], "--device tpu9 cannot be used"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(tiny_corpus, checkpoint, tmp_path, capsys, options, message):
    options = [option.replace("CHECKPOINT", str(checkpoint)) for option in options]
    assert neighbors(tiny_corpus, "--output", tmp_path / "lists", *options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fairseq-adv neighbors:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_dictionary_is_refused(pairs_corpus, checkpoint, tmp_path, capsys):
    options = ["--embeddings", f"fairseq:{checkpoint}", "--num-neighbors", 1]
    assert neighbors(pairs_corpus, "--output", tmp_path / "lists", *options) == 2
    assert "it was trained on data with another dictionary" in capsys.readouterr().err


def test_an_unreadable_embedding_model_is_refused(tiny_corpus, tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    assert neighbors(tiny_corpus, "--output", tmp_path / "lists", "--embeddings", f"hf:{tmp_path / 'empty'}") == 2
    error = capsys.readouterr().err
    assert f"cannot read embedding model hf:{tmp_path / 'empty'}" in error
    assert "fairseq-adv[bert]" in error
