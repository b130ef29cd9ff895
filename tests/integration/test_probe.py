"""``fairseq-adv probe`` on two short trainings: numbers, a page, and nothing measured twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Dict

import pytest

from fairseq_adv.cli.main import main
from tests.integration.running import default_args, run_fairseq_train

OPTIONS = ["--subsets", "test", "--radii", "0.5", "--rates", "0.1", "--noise", "swap", "case"]
OPTIONS += ["--sharpness-sentences", "20", "--iterations", "3"]


@pytest.fixture(scope="module")
def runs(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    folders = {}
    for method, criterion in (("plain", ()), ("rdrop", ("--criterion", "rdrop_label_smoothed"))):
        folder = tmp_path_factory.mktemp(method)
        words = [*default_args(tiny_corpus, folder / "checkpoints"), *criterion, "--max-epoch", 1]
        run = run_fairseq_train([*words, "--log-format", "json"])
        (folder / "train.log").write_text(run.stdout + run.stderr)
        folders[method] = folder
    return folders


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes of subword-nmt without any merge that the corpus has: words stay whole only where nothing is cut."""
    path = tmp_path_factory.mktemp("codes") / "codes"
    path.write_text("#version: 0.2\nq x\n")
    return path


def test_losses_rise_with_the_worst_case_and_the_page_shows_them(
    runs: Dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [f"{name}={folder}" for name, folder in runs.items()]
    words = ["probe", *named, "--output", str(tmp_path / "page"), "--measure", "worst", "random", "sharpness"]
    words += ["--remove-bpe", "none", "--plane", "3", "--points", "5", *OPTIONS]
    assert main(words) == 0
    assert re.search(r"test, worst-case δ, ‖δ‖ = 0.5: rise of nll +\d\.\d{3} \[\d\.\d{3}, \d", capsys.readouterr().out)
    record = json.loads((runs["plain"] / "probe.json").read_text())
    found = record["subsets"]["test"]
    assert found["worst"][0]["nll"] > found["random"][0]["nll"] > 0.9 * found["clean"]["nll"]
    assert found["clean"]["bleu"] >= 0 and found["sentences"] == 16
    for moved in (*found["worst"], *found["random"]):
        assert moved["rise"] == pytest.approx(moved["nll"] - found["clean"]["nll"], abs=1e-9)
        assert moved["rise_low"] <= moved["rise"] <= moved["rise_high"]
    assert found["worst"][0]["rise_low"] > 0
    sharpness = record["sharpness"]
    assert sharpness["eigenvalue"] > 0 and sharpness["sam"][0]["rise"] > 0
    assert all(line[2] == pytest.approx(sharpness["nll"], rel=1e-5) for line in sharpness["line"]["nll"])
    pngs = {path.name for path in (tmp_path / "page").glob("probe_*.png")}
    assert pngs == {"probe_perturbed.png", "probe_lines.png", "probe_planes.png"}

    (runs["plain"] / "checkpoints/checkpoint_best.pt").touch()
    before = {name: (folder / "probe.json").stat().st_mtime_ns for name, folder in runs.items()}
    assert main(words) == 0
    after = {name: (folder / "probe.json").stat().st_mtime_ns for name, folder in runs.items()}
    assert after["rdrop"] == before["rdrop"], "the same settings and checkpoint were measured again"
    assert after["plain"] > before["plain"], "a newer checkpoint was not measured"


def test_subwords_of_other_data_are_refused(
    runs: Dict[str, Path], codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["probe", str(runs["plain"]), "--output", str(tmp_path), "--measure", "noise", *OPTIONS]
    assert main(words) == 2
    assert "--subwords" in capsys.readouterr().err
    assert main([*words, "--subwords", str(codes)]) == 2
    assert f"--subwords {codes} cuts" in capsys.readouterr().err
    assert main([*words, "--checkpoint", "nothing.pt"]) == 2
    assert "no checkpoint" in capsys.readouterr().err
