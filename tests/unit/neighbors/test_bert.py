"""Word embeddings out of the files of BERT-like models, made here from a few words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers")

from fairseq_adv.neighbors.bert import load_bert

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "##s", "bark", "."]
WEIGHT = torch.randn(len(VOCABULARY), 4, generator=torch.Generator().manual_seed(1))
NAME = "bert.embeddings.word_embeddings.weight"
OTHER = {"bert.embeddings.position_embeddings.weight": torch.zeros(8, 4), "pooler.weight": torch.zeros(4, 4)}


def write_model(directory: Path) -> Path:
    """A configuration and a tokenizer that cuts off after two words, as some models' files say; no parameters."""
    directory.mkdir(exist_ok=True)
    (directory / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    config = dict(model_type="bert", vocab_size=len(VOCABULARY), hidden_size=4)
    (directory / "config.json").write_text(json.dumps(config))
    tokenizer = dict(tokenizer_class="BertTokenizer", do_lower_case=True, model_max_length=4)
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return directory


def write_one_file(directory: Path) -> None:
    save_file({**OTHER, NAME: WEIGHT}, directory / "model.safetensors")


def write_shards(directory: Path) -> None:
    save_file(OTHER, directory / "model-1.safetensors")
    save_file({NAME: WEIGHT}, directory / "model-2.safetensors")
    places = {**dict.fromkeys(OTHER, "model-1.safetensors"), NAME: "model-2.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def write_bin(directory: Path) -> None:
    torch.save({**OTHER, NAME: WEIGHT}, directory / "pytorch_model.bin")


@pytest.mark.parametrize("write", [write_one_file, write_shards, write_bin])
def test_the_embedding_matrix_is_found_in_each_layout(tmp_path, write):
    write(write_model(tmp_path / "model"))
    assert torch.equal(load_bert(str(tmp_path / "model")).weight, WEIGHT)


def test_sentences_are_split_whole_and_without_special_tokens(tmp_path):
    write_one_file(write_model(tmp_path))
    bert = load_bert(str(tmp_path))
    sentences = ["The dogs bark .", "cats bark", "", "[CLS] bark [SEP]", "the " * 20]
    expected = [["the", "dog", "##s", "bark", "."], ["bark"], [], ["bark"], ["the"] * 20]
    assert [[VOCABULARY[row] for row in rows] for rows in bert.split(sentences)] == expected


@pytest.mark.parametrize("name", ["shared.weight", "encoder.embed_tokens.weight", "transformer.wte.weight"])
def test_other_architectures_names_are_known(tmp_path, name):
    save_file({**OTHER, name: WEIGHT}, write_model(tmp_path) / "model.safetensors")
    assert torch.equal(load_bert(str(tmp_path)).weight, WEIGHT)


def test_unreadable_models_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (str(tmp_path / "missing"), str(tmp_path)):
        with pytest.raises(ValueError, match=rf"cannot read embedding model hf:{name} .*fairseq-adv\[bert\]"):
            load_bert(name)
    model = write_model(tmp_path / "model")
    with pytest.raises(ValueError, match=r"has neither model.safetensors nor pytorch_model.bin"):
        load_bert(str(model))
    (model / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cannot read embedding model hf:"):
        load_bert(str(model))
    save_file(OTHER, model / "model.safetensors")
    with pytest.raises(ValueError, match=r"no parameter of it is called word_embeddings.weight"):
        load_bert(str(model))
    save_file({NAME: WEIGHT[:5]}, model / "model.safetensors")
    with pytest.raises(ValueError, match="tokenizer of 10 words and embeddings for 5"):
        load_bert(str(model))
