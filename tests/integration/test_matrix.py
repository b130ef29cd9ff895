"""The matrix of criterions, models, tasks and ranks; see ``matrix.py``.

CI walks a diagonal. All cells: ``python -m pytest -m slow tests/integration/test_matrix.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch

from tests.integration.matrix import OTHERS_ON_ONE_RANK, Cell, combinations, diagonal, outcome, run_on_two_ranks

AT_ONCE = 60  # cells in one pair of processes


def complaints(cell: Cell, result: Dict[str, Any], one: Dict[str, Any]) -> List[str]:
    """What is wrong with the *result* of *cell*, given that of one rank."""
    if "error" in result:
        return [result["error"][-600:]]
    refusal = cell.refusal()
    if refusal is not None:
        said = result.get("refused", "it trained")
        return [] if re.search(refusal, said) and "\n" not in said else [f"not refused by {refusal!r}: {said}"]
    if "refused" in result:
        return [f"refused: {result['refused']}"]
    found = [f"the ranks differ by {result['spread']}"] if result.get("spread", 0) > 0 else []
    if cell.model not in OTHERS_ON_ONE_RANK:
        if result["losses"] != pytest.approx(one["losses"], rel=1e-4):
            found.append(f"losses {result['losses']}, on one rank {one['losses']}")
        if result["norms"] != pytest.approx(one["norms"], rel=1e-3):
            found.append(f"gradient norms {result['norms']}, on one rank {one['norms']}")
        if not torch.allclose(result["vector"], one["vector"], rtol=1e-3, atol=2e-4):
            found.append(f"parameters differ by {(result['vector'] - one['vector']).abs().max()}")
    return found


def walk(cells: List[Cell], data: Path, directory: Path) -> List[str]:
    """Run *cells* and what they are compared with; the complaints, each with its cell's name."""
    references = {cell: cell._replace(ranks="one") for cell in cells}
    ones = {
        one: outcome(one.args(data, directory / f"one{n}")) for n, one in enumerate(dict.fromkeys(references.values()))
    }
    results = {cell: ones[cell] for cell in cells if cell.ranks == "one"}
    shared = [cell for cell in cells if cell.ranks != "one"]
    for first in range(0, len(shared), AT_ONCE):
        folder = directory / f"pair{first}"
        folder.mkdir()
        results.update(run_on_two_ranks(shared[first : first + AT_ONCE], data, folder))
    return [f"{cell}: {text}" for cell in cells for text in complaints(cell, results[cell], ones[references[cell]])]


def test_diagonal(tiny_corpus, tmp_path):
    assert walk(diagonal(), tiny_corpus, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_cell(tiny_corpus, tmp_path):
    assert walk(list(combinations()), tiny_corpus, tmp_path) == []
