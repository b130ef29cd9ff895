"""Systems compared over sentences and seeds: against sacreBLEU's own command and numbers worked out here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import List, Tuple

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.scoring import significance as compare

REFERENCES = [f"Das Licht in Zimmer {number} ist jetzt {state} ." for number in range(30) for state in ("an", "aus")]


def write_run(folder: Path, method: str, seed: int, hypotheses: List[str], bleu: float = 50.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"method": method, "seed": seed}))
    (folder / "score.json").write_text(json.dumps({"bleu": bleu, "chrf": 2 * bleu}))
    (folder / "test.hyp").write_text("".join(line + "\n" for line in hypotheses))
    (folder / "test.ref").write_text("".join(line + "\n" for line in REFERENCES))
    return folder


def worse(step: int) -> List[str]:
    """References with every *step*-th sentence cut short."""
    return [line[: len(line) // 2] if i % step == 0 else line for i, line in enumerate(REFERENCES)]


def test_bootstrap_is_sacrebleus(tmp_path: Path) -> None:
    base = write_run(tmp_path / "a", "plain", 1, worse(4))
    other = write_run(tmp_path / "b", "arch", 1, worse(5))
    rows = compare.summary([compare.read_system(str(base)), compare.read_system(str(other))], "plain", samples=200)
    found = rows[1]["paired"][1]
    command = [sys.executable, "-m", "sacrebleu", str(base / "test.ref"), "-i", str(base / "test.hyp")]
    command += [
        str(other / "test.hyp"),
        "-m",
        "bleu",
        "chrf",
        "--paired-bs",
        "--paired-bs-n",
        "200",
        "-w",
        "4",
        "-f",
        "text",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scores = [float(score) for score in re.findall(r"│ (\d+\.\d+) \(", told)]  # BLEU, chrF of one, then of the other
    p_values = [float(p) for p in re.findall(r"\(p = (\d\.\d+)\)", told)]
    for column, metric in enumerate(("bleu", "chrf")):
        assert found[metric]["p"] == pytest.approx(p_values[column], abs=1e-4)
        assert found[metric]["difference"] == pytest.approx(scores[2 + column] - scores[column], abs=2e-4)


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"plain-{seed}", "plain", seed, worse(4), bleu) for seed, bleu in ((1, 20), (2, 23))]
    runs.append(write_run(tmp_path / "arch-seed2", "arch", 2, worse(9), 25.5))
    systems = [compare.read_system(str(run)) for run in runs]
    plain, arch = compare.summary(systems, "plain", samples=50)
    assert plain["bleu"] == 21.5 and plain["bleu_sd"] == pytest.approx(4.5**0.5) and plain["seeds"] == [1, 2]
    assert arch["bleu_sd"] is None and list(arch["paired"]) == [2]
    table = compare.format_rows([plain, arch], "plain")
    assert "| plain | 1, 2 | 21.50 ± 2.12 | – | – |" in table
    bleu = arch["paired"][2]["bleu"]
    assert bleu["low"] < bleu["difference"] < bleu["high"]
    assert f"{bleu['difference']:+.1f} [{bleu['low']:+.1f}, {bleu['high']:+.1f}]" in table


ONE_SEED = "It is about these trainings; another seed may differ."


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ([(0.1, 2.0)], "arch is above plain in BLEU in this seed: no interval holds zero. " + ONE_SEED),
        ([(-2.0, -0.1), (-3.0, -1.0)], "arch is below plain in BLEU in all 2 seeds: no interval holds zero."),
        ([(-1.0, 1.0), (-0.5, 2.0)], "arch cannot be told from plain in BLEU by these test sentences."),
        ([(0.1, 1.0), (-0.5, 2.0)], "arch is above plain in BLEU in 1 and below it in 0 of 2 seeds: no answer."),
    ],
)
def test_the_words_say_what_the_intervals_allow(bounds: List[Tuple[float, float]], told: str) -> None:
    paired = {seed: {"bleu": {"low": a, "high": b, "difference": (a + b) / 2}} for seed, (a, b) in enumerate(bounds, 1)}
    assert compare.in_words({"method": "arch", "bleu": 20.0, "paired": paired}, "plain") == told


@pytest.mark.parametrize(
    ("bleu", "difference", "untrained"), [(0.1, -0.2, True), (1.9, -1.0, False), (2.1, 1.0, False)]
)
def test_of_systems_that_learnt_nothing_no_difference_is_told(bleu: float, difference: float, untrained: bool) -> None:
    paired = {1: {"bleu": {"low": difference - 0.1, "high": difference + 0.1, "difference": difference}}}
    told = compare.in_words({"method": "arch", "bleu": bleu, "paired": paired}, "plain")
    assert ("arch and plain are below 2 BLEU" in told) == untrained


def test_method_and_seed_from_the_folder_or_the_argument(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r3f-seed7", "x", 1, worse(3))
    (run / "run.json").unlink()
    system = compare.read_system(str(run))
    assert (system.method, system.seed) == ("r3f", 7)
    assert compare.read_system(f"mine={run}").method == "mine"


def test_refuses_other_references_and_doubles(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base = write_run(tmp_path / "a", "plain", 1, worse(4))
    other = write_run(tmp_path / "b", "arch", 1, worse(5))
    assert main(["compare", str(base), f"plain={other}"]) == 2
    assert "given twice" in capsys.readouterr().err
    (other / "test.ref").write_text("etwas anderes\n" * len(REFERENCES))
    assert main(["compare", str(base), str(other)]) == 2
    assert "other references" in capsys.readouterr().err
    assert main(["compare", str(base), str(tmp_path)]) == 2
    assert "no score.json" in capsys.readouterr().err
