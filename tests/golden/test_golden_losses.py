"""No method's first losses change without a word; see ``losses.py`` for how to renew them."""

from __future__ import annotations

import pytest

from tests.golden.losses import first_losses, read
from tests.integration.training import CASES

RENEW = "python -m tests.golden.losses --write"


def test_every_method_has_golden_losses():
    assert sorted(read()) == sorted(CASES), f"run: {RENEW}"


@pytest.mark.parametrize("case", CASES)
def test_first_losses(case, tiny_corpus, tmp_path):
    expected = read().get(case)
    assert expected is not None, f"run: {RENEW} '{case}'"
    assert first_losses(case, tiny_corpus, tmp_path) == pytest.approx(expected, rel=1e-4), f"if it is meant: {RENEW}"
