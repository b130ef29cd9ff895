"""Vectors of an untuned encoder against the mean of the original's features."""

from __future__ import annotations

import torch

import fairseq_adv
from fairseq_adv.encoders.convert import convert_bert
from fairseq_adv.encoders.features import cosines, mean_vectors
from fairseq_adv.encoders.vocabulary import load_tokenizer
from tests.unit.encoders import tiny_bert

fairseq_adv.register()

SENTENCES = ["the dogs bark .", "a dog runs", "bark", "the the the the the the the ,", "bark " * 30]


def expected(source, sentence: str) -> torch.Tensor:
    settings = tiny_bert.config()
    ids = load_tokenizer(str(source))(sentence)["input_ids"]
    ids = [*ids[: tiny_bert.POSITIONS - 1], ids[-1]][: len(ids)]
    return tiny_bert.features(tiny_bert.parameters(settings), settings, ids, 0, 3).mean(0)


def test_vectors_are_means_over_real_tokens(tmp_path) -> None:
    source = tiny_bert.write_model(tmp_path / "original")
    convert_bert(f"hf:{source}", tmp_path / "fairseq")
    wanted = torch.stack([expected(source, sentence) for sentence in SENTENCES])
    assert (mean_vectors(tmp_path / "fairseq", SENTENCES).double() - wanted).abs().max() < 5e-6
    pairs = torch.nn.functional.cosine_similarity(wanted[:2], wanted[2:4], dim=-1)
    found = cosines(tmp_path / "fairseq", SENTENCES[:2], SENTENCES[2:4])
    assert (torch.tensor(found, dtype=torch.double) - pairs).abs().max() < 5e-6
