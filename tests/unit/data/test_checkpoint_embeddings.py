"""Word embeddings out of a fairseq checkpoint, read without executing what a file may carry."""

from __future__ import annotations

import os
import pickle
from argparse import Namespace

import pytest
import torch

from fairseq_adv.data.checkpoint_embeddings import read_checkpoint_embeddings

ENCODER, DECODER = torch.randn(9, 4), torch.randn(11, 4).half()


@pytest.fixture
def checkpoint(tmp_path):
    model = {"encoder.embed_tokens.weight": ENCODER, "decoder.embed_tokens.weight": DECODER}
    torch.save({"args": None, "cfg": {"model": Namespace(arch="lstm")}, "model": model}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_each_side_has_its_matrix_in_fp32(checkpoint):
    assert torch.equal(read_checkpoint_embeddings(checkpoint, "src", 9), ENCODER)
    decoder = read_checkpoint_embeddings(checkpoint, "tgt", 11)
    assert decoder.dtype == torch.float32
    assert torch.equal(decoder, DECODER.float())


def test_an_encoder_of_sentences_has_one_side(checkpoint):
    torch.save({"model": {"encoder.sentence_encoder.embed_tokens.weight": ENCODER}}, checkpoint)
    assert torch.equal(read_checkpoint_embeddings(checkpoint, "src", 9), ENCODER)
    with pytest.raises(ValueError, match=r"has no parameter decoder\.embed_tokens\.weight"):
        read_checkpoint_embeddings(checkpoint, "tgt", 9)


def test_another_dictionary_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"model\.pt has 11 embeddings .* the tgt dictionary has 9 symbols"):
        read_checkpoint_embeddings(checkpoint, "tgt", 9)


def test_files_without_the_matrix_are_refused(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*none\.pt"):
        read_checkpoint_embeddings(tmp_path / "none.pt", "src", 9)
    torch.save({"model": {"decoder.embed_tokens.weight": DECODER}}, checkpoint)
    with pytest.raises(ValueError, match=r"has no parameter encoder\.embed_tokens\.weight"):
        read_checkpoint_embeddings(checkpoint, "src", 9)
    torch.save([ENCODER], checkpoint)
    with pytest.raises(ValueError, match=r"model\.pt is no fairseq checkpoint"):
        read_checkpoint_embeddings(checkpoint, "src", 9)


@pytest.mark.parametrize("kept", [0, 50, -100])
def test_damaged_files_are_refused(checkpoint, kept):
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cannot read .*model\.pt as a fairseq checkpoint"):
        read_checkpoint_embeddings(checkpoint, "src", 9)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_code_in_a_file_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Attack()}, "zipped.pt")
    with open("plain.pt", "wb") as file:
        pickle.dump({"model": Attack()}, file)
    for name in ("zipped.pt", "plain.pt"):
        with pytest.raises(ValueError, match=f"cannot read {name}"):
            read_checkpoint_embeddings(name, "src", 9)
    assert not (tmp_path / "attacked").exists()
