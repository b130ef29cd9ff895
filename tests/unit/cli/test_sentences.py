"""``fairseq-adv sentences``: what is scored already, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.cli.sentences import evaluate


def test_a_score_is_that_of_the_checkpoint_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored: List[str] = []

    def score_run(run: Path, data: Path, checkpoint: str) -> Dict[str, Any]:
        scored.append(checkpoint)
        result = {"metrics": ["accuracy"], "checkpoint": checkpoint, "subsets": {"test": {"accuracy": 0.5, "rows": 4}}}
        (run / "score.json").write_text(json.dumps(result))
        return result

    monkeypatch.setattr(evaluate, "score_run", score_run)
    (tmp_path / "checkpoints").mkdir()
    for name in ("best", "last"):
        (tmp_path / f"checkpoints/checkpoint_{name}.pt").touch()
    for name in ("best", "best", "last", "last", "best"):
        words = ["--data", "bin", "--checkpoint", f"checkpoint_{name}.pt", "--json"]
        assert main(["sentences", "evaluate", str(tmp_path), *words]) == 0
        assert json.loads(capsys.readouterr().out)["checkpoint"] == f"checkpoint_{name}.pt"
    assert scored == ["checkpoint_best.pt", "checkpoint_last.pt", "checkpoint_best.pt"]
