"""The first ten losses of each method on the tiny corpus, kept in ``losses.json``.

A change of these numbers is a change of what a method computes. If it is meant:
``python -m tests.golden.losses --write`` and say why in the commit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Dict, List

import torch
from tqdm import tqdm

from tests.integration.corpus import binarise
from tests.integration.running import default_args
from tests.integration.training import CASES, go_on, method_options, train

PATH = Path(__file__).with_name("losses.json")
UPDATES = 10


def first_losses(case: str, data: Path, save_dir: Path) -> List[float]:
    """Nats per target token in the first updates of one of ``CASES``, default model, dropout 0.1.

    They reach into the second epoch, where ARCH takes its perturbations from the cache; but for
    FreeAT, whose replays fill the first.
    """
    first = train([*default_args(data, save_dir), *method_options(case), "--max-tokens", "400"], UPDATES)
    losses = first.losses
    if len(losses) < UPDATES:
        losses = losses + go_on(first.training, UPDATES - len(losses), epoch=2).losses
    assert len(losses) == UPDATES
    return losses


def read() -> Dict[str, List[float]]:
    """Case -> its losses as they were when they were written."""
    return dict(json.loads(PATH.read_text(encoding="utf-8")))


def write(cases: List[str]) -> None:
    """Train *cases* and put their losses into the file, the others' being kept."""
    losses = read() if PATH.exists() else {}
    with tempfile.TemporaryDirectory() as directory:
        data = binarise(Path(directory))
        for number, case in enumerate(tqdm(cases, desc="golden losses")):
            losses[case] = [round(loss, 6) for loss in first_losses(case, data, Path(directory, f"run{number}"))]
    lines = [f'  "{case}": {json.dumps(losses[case])}' for case in sorted(losses) if case in CASES]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", required=True, help="replace the numbers in losses.json")
    parser.add_argument("cases", nargs="*", default=CASES, help="methods to renew (default: all)")
    torch.set_num_threads(1)
    write(list(parser.parse_args().cases))
