"""Fixtures of all tests: one thread, no GPU, and a tiny binarised corpus."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.integration.corpus import binarise

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of 160/24/16 English-German pairs, 1 to 20 tokens, binarised by fairseq-preprocess: read only."""
    return binarise(tmp_path_factory.mktemp("tiny_corpus"))
