"""The matrix of criterions, encoders, tasks and ranks for sentences; see ``sentence_matrix.py``.

CI walks a diagonal. All cells: ``python -m pytest -m slow tests/integration/test_sentence_matrix.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.sentence_matrix import KINDS, cells, diagonal
from tests.integration.sentences import binarise_sentences
from tests.integration.test_matrix import walk


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind: single sentences of three classes, and pairs with a number."""
    root = tmp_path_factory.mktemp("sentences")
    for kind in KINDS:
        binarise_sentences(root / kind, pairs=kind == "numbers", regression=kind == "numbers")
    return root


def test_diagonal(data, tmp_path):
    assert walk(diagonal(), data, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_cell(data, tmp_path):
    assert walk(list(cells()), data, tmp_path) == []
