"""Sentences as fairseq-preprocess wrote them: ids, tokens, text, and the fingerprint that training computes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from fairseq_adv.data.binarised import BinarisedSide, open_corpus
from fairseq_adv.neighbors import dataset_fingerprint


def lines(corpus: Path, split: str, lang: str):
    return (corpus.parent / "text" / f"{split}.{lang}").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(("side", "lang"), [("src", "en"), ("tgt", "de")])
def test_ids_are_lines_of_the_training_text(tiny_corpus, side, lang):
    corpus = open_corpus(tiny_corpus)
    assert (corpus.source_lang, corpus.target_lang, corpus.num_samples) == ("en", "de", 160)
    text = lines(tiny_corpus, "train", lang)
    assert corpus.side(side).text(np.arange(160)) == text
    dictionary = corpus.side(side).dictionary
    assert [dictionary[t] for t in corpus.side(side).tokens(np.array([7]))[0]] == text[7].split()


def test_another_split_and_direction(tiny_corpus):
    corpus = open_corpus(tiny_corpus, "de", "en", "valid")
    assert corpus.num_samples == 24
    assert corpus.tgt is not None
    known = {"src": set(corpus.src.dictionary.symbols), "tgt": set(corpus.tgt.dictionary.symbols)}
    for side, lang in (("src", "de"), ("tgt", "en")):
        words = [[word for word in line.split() if word in known[side]] for line in lines(tiny_corpus, "valid", lang)]
        assert corpus.side(side).text(np.arange(24)) == [" ".join(sentence) for sentence in words]


def test_the_fingerprint_is_that_of_the_training_task(tiny_corpus):
    from fairseq.tasks.translation import TranslationConfig, TranslationTask

    config = TranslationConfig(data=str(tiny_corpus), source_lang="en", target_lang="de", dataset_impl=None)
    task = TranslationTask.setup_task(config)
    task.load_dataset("train", combine=True)
    dataset = task.dataset("train")
    expected = dataset_fingerprint(
        dataset.src_sizes, dataset.tgt_sizes, task.source_dictionary.symbols, task.target_dictionary.symbols
    )
    assert open_corpus(tiny_corpus).fingerprint == expected


def test_splits_in_several_parts_are_one(tiny_corpus, tmp_path):
    shutil.copytree(tiny_corpus, tmp_path / "bin")
    for path in list((tmp_path / "bin").glob("valid.*")):
        shutil.copy(path, path.with_name(path.name.replace("valid.", "train1.")))
    corpus = open_corpus(tmp_path / "bin")
    assert corpus.num_samples == 160 + 24
    assert corpus.tgt is not None and corpus.tgt.text(np.array([161])) == [lines(tiny_corpus, "valid", "de")[1]]


@pytest.mark.parametrize(
    ("pieces", "remove_bpe", "text"),
    [
        ("\u2581the \u2581neigh bour s", "sentencepiece", "the neighbours"),
        ("the neigh@@ bour@@ s", "subword_nmt", "the neighbours"),
        ("the neigh@@ bour@@ s", "@@ ", "the neighbours"),
        ("the neigh@@ bour@@ s", None, "the neigh@@ bour@@ s"),
        ("the neigh ##bour ##s", "bert", "the neighbours"),
    ],
)
def test_pieces_are_joined_and_what_is_no_word_is_left_out(pieces, remove_bpe, text):
    dictionary = Dictionary()
    tokens = [dictionary.add_symbol(piece) for piece in pieces.split()]
    sentence = [dictionary.bos(), *tokens, dictionary.unk(), dictionary.eos(), dictionary.pad()]
    side = BinarisedSide([torch.tensor(sentence)], dictionary)
    assert side.tokens(np.array([0]))[0].tolist() == tokens
    assert side.text(np.array([0]), remove_bpe) == [text]


def test_words_beyond_the_dictionary_are_refused():
    side = BinarisedSide([torch.tensor([4, 99, 2])], Dictionary())
    with pytest.raises(ValueError, match="the data name word 99, but the dictionary has 4"):
        side.tokens(np.array([0]))


def test_what_is_missing_is_named(tiny_corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data directory .*nowhere"):
        open_corpus(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot tell the languages"):
        open_corpus(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no dictionary .*dict\.en\.txt"):
        open_corpus(tmp_path, "en", "de")
    with pytest.raises(FileNotFoundError, match="train7"):
        open_corpus(tiny_corpus, split="train7")
    with pytest.raises(ValueError, match="several directories"):
        open_corpus(f"{tiny_corpus}:{tiny_corpus}")
    one_sided = tmp_path / "one_sided"
    shutil.copytree(tiny_corpus, one_sided)
    for path in one_sided.glob("train.en-de.de.*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"'train' in .*one_sided has no de side"):
        open_corpus(one_sided)
