"""Averaged checkpoints against sums written out by hand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Dict, List

import pytest
import torch

from fairseq_adv.cli.main import main
from fairseq_adv.scoring import averaging


def write_checkpoint(
    path: Path, seed: int, dtype: torch.dtype = torch.float32, width: int = 3
) -> Dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    model = {
        "encoder.weight": torch.randn(4, width, generator=generator).to(dtype),
        "decoder.bias": (1e4 * torch.randn(5, generator=generator)).to(dtype),
        "decoder.version": torch.tensor([seed]),
    }
    state = {
        "model": model,
        "args": argparse.Namespace(seed=seed),
        "last_optimizer_state": {"step": seed},
        "extra": seed,
    }
    torch.save(state, path)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_mean_equals_brute_force(tmp_path: Path, dtype: torch.dtype) -> None:
    paths = [tmp_path / f"checkpoint{number}.pt" for number in (1, 2, 3)]
    models = [write_checkpoint(path, seed, dtype) for seed, path in enumerate(paths, start=1)]
    output = tmp_path / "average.pt"
    assert main(["average", "--inputs", *map(str, paths), "--output", str(output)]) == 0
    state = averaging.load_checkpoint(output)
    for name in ("encoder.weight", "decoder.bias"):
        flat = [[float(value) for value in model[name].flatten()] for model in models]
        expected = torch.tensor([sum(values) / 3 for values in zip(*flat)], dtype=torch.float64).to(dtype)
        assert torch.equal(state["model"][name].flatten(), expected)
        assert state["model"][name].dtype == dtype
    assert state["model"]["decoder.version"].tolist() == [3]
    assert state["args"].seed == 3 and state["extra"] == 3
    assert "last_optimizer_state" not in state


def test_last_by_number_not_by_name(tmp_path: Path) -> None:
    for name in ("checkpoint2", "checkpoint9", "checkpoint10", "checkpoint11", "checkpoint_best", "checkpoint_3_400",
                 "checkpoint_12_50"):  # fmt: skip
        (tmp_path / f"{name}.pt").touch()
    by_epoch = averaging.last_checkpoints(tmp_path, averaging.EPOCH_FILE, 3)
    assert [path.name for path in by_epoch] == ["checkpoint9.pt", "checkpoint10.pt", "checkpoint11.pt"]
    by_update = averaging.last_checkpoints(tmp_path, averaging.UPDATE_FILE, 2)
    assert [path.name for path in by_update] == ["checkpoint_12_50.pt", "checkpoint_3_400.pt"]
    with pytest.raises(ValueError, match=r"5 checkpoints were asked for, but .* has 4"):
        averaging.last_checkpoints(tmp_path, averaging.EPOCH_FILE, 5)


class Refused:
    """Any class that the safe loader does not know."""


def test_refuses_what_is_no_checkpoint_of_this_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good = tmp_path / "good.pt"
    write_checkpoint(good, 1)
    other, text, code = tmp_path / "other.pt", tmp_path / "text.pt", tmp_path / "code.pt"
    write_checkpoint(other, 2, width=7)
    text.write_text("not a checkpoint")
    torch.save({"model": {}, "args": Refused()}, code)
    cases: List[tuple] = [(other, "other parameters"), (text, "cannot be read"), (code, "cannot be read")]
    for path, message in cases:
        assert main(["average", "--inputs", str(good), str(path), "--output", str(tmp_path / "average.pt")]) == 2
        error = capsys.readouterr().err
        assert message in error and path.name in error
    assert not (tmp_path / "average.pt").exists()
