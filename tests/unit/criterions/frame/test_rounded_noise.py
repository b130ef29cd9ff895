"""What half-precision word embeddings round away is told before the first update."""

from __future__ import annotations

import pytest
import torch

from tests.unit.criterions.updates import make_criterion
from tests.unit.sentence_models import sentence_model
from tests.unit.toy_models import toy_model

B2 = {"adv_preset": "arch-b2"}
CASES = [
    ("r3f", {}, torch.bfloat16, "--r3f-sigma 1e-05"),
    ("r3f", {"r3f_sigma": 0.1}, torch.bfloat16, None),
    ("r3f", {}, torch.float32, None),
    ("scala", {}, torch.bfloat16, "--scala-sigma 1e-05"),
    ("smart", B2, torch.bfloat16, "--adv-init-sigma 1e-05"),
    ("smart", {}, torch.bfloat16, None),
    ("vat", {}, torch.bfloat16, None),
    ("rdrop", {}, torch.bfloat16, None),
]


@pytest.mark.parametrize(("method", "options", "dtype", "told"), CASES)
def test_noise_that_is_rounded_away_is_told(method, options, dtype, told, caplog):
    make_criterion(f"{method}_label_smoothed", **options)._check_model(toy_model().to(dtype))
    said = [record.getMessage() for record in caplog.records if "too small to change" in record.getMessage()]
    assert len(said) == (0 if told is None else 2)  # the tables of both sides are two
    assert all(f"bfloat16 word embeddings at {told}: train with --amp" in line for line in said)


def test_a_shared_table_is_told_of_once(caplog):
    make_criterion("r3f_label_smoothed")._check_model(toy_model("transformer_shared").bfloat16())
    assert sum("too small" in record.getMessage() for record in caplog.records) == 1


def test_encoders_of_sentences_too(caplog):
    """The preset for language understanding starts at 1e-5."""
    make_criterion("smart_sentence_prediction", **B2)._check_model(sentence_model().bfloat16())
    assert sum("--adv-init-sigma 1e-05" in record.getMessage() for record in caplog.records) == 1
