"""Gradients reduced by hand are those that torch's wrapper reduces, with the options that it has for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest
import torch
from torch import Tensor

from tests.integration.running import ROOT


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, List[Tensor]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    words = [sys.executable, "-m", "tests.unit.criterions.frame.on_two_ranks", str(folder)]
    subprocess.run(words, check=True, cwd=ROOT, timeout=120)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("precision", ["full", "half"])
def test_gradients_are_those_of_torchs_reduction(found, precision) -> None:
    for ours, theirs in zip(found[f"{precision} hand"], found[f"{precision} torch"]):
        assert torch.equal(ours, theirs) and ours.abs().max() > 0


def test_half_precision_rounds(found) -> None:
    pairs = list(zip(found["half hand"], found["full hand"]))
    assert any(not torch.equal(half, full) for half, full in pairs)
    for half, full in pairs:
        torch.testing.assert_close(half, full, rtol=2e-3, atol=1e-3)


def test_buffers_are_the_first_ranks_where_that_was_asked_for(found) -> None:
    first, second = found["alike"]
    assert torch.equal(first, second)
    first, second = found["apart"]
    assert torch.equal(second, first + 4)


@pytest.mark.parametrize("reduced", ["hand", "torch"])
def test_buffers_are_alike_where_a_rank_has_fewer_passes(found, reduced) -> None:
    first, second = found[f"uneven {reduced}"]
    assert torch.equal(first, second) and first.abs().max() > 0
