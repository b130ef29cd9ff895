"""Scores of a generate output: sacreBLEU's command, fairseq-score and hand-made n-best lists as oracles."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.scoring import bleu as scoring

SENTENCES = [
    'Gib den "MFA-Code" für dein Gerät ein (6-stellig).',
    "Die Verbindung zu X ist fehlgeschlagen, bitte überprüfe die Adresse.",
    "Möchtest du die Kamera im Erdgeschoss wirklich entfernen?",
    "Der Sensor meldet 21,5 °C – das ist zu viel.",
    "Bereits konfiguriert. Nur eine einzige Konfiguration möglich!",
    "Starte Home Assistant neu, um dieses Problem zu beheben.",
]


def references(count: int) -> List[str]:
    return [f"{SENTENCES[i % len(SENTENCES)]} Nummer {i}" for i in range(count)]


def garble(line: str, rng: random.Random) -> str:
    """Drop, swap and lower-case some words, as a weak model does."""
    words = [word for word in line.split() if rng.random() > 0.15]
    if len(words) > 3 and rng.random() < 0.5:
        words[1], words[2] = words[2], words[1]
    return " ".join(word.lower() if rng.random() < 0.1 else word for word in words)


def write_generation(path: Path, texts: Dict[int, List[str]], refs: List[str], scores: Optional[Dict] = None) -> Path:
    """What fairseq-generate prints, in its order: by length, not by id, log lines in between."""
    lines = ["2026-01-01 00:00:00 | INFO | fairseq_cli.generate | loading model(s)"]
    for key in sorted(texts, key=lambda key: len(refs[key])):
        lines += [f"S-{key}\tsource", f"T-{key}\t{refs[key]}"]
        for rank, text in enumerate(texts[key]):
            score = scores[key][rank] if scores else -0.5 - rank
            lines += [f"H-{key}\t{score}\t{text}", f"D-{key}\t{score}\t{text}"]
            lines += [f"P-{key}\t" + " ".join(["-0.5000"] * (len(text.split()) + 1))]
    lines += ["Generate test with beam=5: BLEU4 = 1.00"]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    rng = random.Random(1)
    refs = references(300)
    (tmp_path / "test.de").write_text("".join(line + "\n" for line in refs))
    return write_generation(tmp_path / "test.out", {i: [garble(line, rng)] for i, line in enumerate(refs)}, refs)


def score(generated: Path, *more: str) -> Dict:
    folder = generated.parent / "scored"
    arguments = [str(generated), "--ref", str(generated.parent / "test.de"), "--output", str(folder), *more]
    assert main(["score", *arguments]) == 0
    return json.loads((folder / "score.json").read_text())


def test_agrees_with_sacrebleus_command_to_the_last_digit(generated: Path) -> None:
    result = score(generated)
    folder = generated.parent / "scored"
    command = [sys.executable, "-m", "sacrebleu", str(generated.parent / "test.de"), "-i", str(folder / "test.hyp")]
    command += ["-m", "bleu", "chrf", "-w", "14", "-f", "json"]
    bleu, chrf = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert round(result["bleu"], 14) == bleu["score"] and 20 < result["bleu"] < 95
    assert round(result["chrf"], 14) == chrf["score"]
    assert result["bleu_signature"] == bleu["signature"].replace("BLEU|", "")
    assert result["sentences"] == 300
    lengths = [
        len(scoring.moses_tokens((folder / name).read_text().splitlines(), "de")) for name in ("test.hyp", "test.ref")
    ]
    assert lengths == [300, 300]
    assert result["brevity_ratio"] < 1 and result["brevity_penalty"] == pytest.approx(
        math.exp(1 - 1 / result["brevity_ratio"])
    )


def test_tokenised_bleu_is_that_of_fairseq_score(generated: Path) -> None:
    result = score(generated)
    folder = generated.parent / "scored"
    command = [
        str(Path(sys.executable).parent / "fairseq-score"),
        "--sys",
        str(folder / "test.tok.hyp"),
        "--ref",
        str(folder / "test.tok.ref"),
    ]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"BLEU4 = {result['tokenized_bleu']:.2f}," in printed
    assert abs(result["tokenized_bleu"] - result["bleu"]) > 0.01
    tokens = (folder / "test.tok.ref").read_text().splitlines()
    assert tokens[0] == 'Gib den " MFA-Code " für dein Gerät ein ( 6-stellig ) . Nummer 0'


def test_tokens_as_generated_need_no_tokeniser(generated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    assert score(generated, "--tokens", "generated")["tokens"] == "as generated"
    assert main(["score", str(generated)]) == 2


def test_tokens_in_lower_case_are_put_together_and_case_is_ignored(tmp_path: Path) -> None:
    rng, refs = random.Random(2), references(40)
    tokens = [line.lower() for line in scoring.moses_tokens(refs, "de")]
    (tmp_path / "test.de").write_text("".join(line + "\n" for line in refs))
    write_generation(tmp_path / "test.out", {i: [garble(line, rng)] for i, line in enumerate(tokens)}, tokens)
    result = score(tmp_path / "test.out", "--lowercase", "--detokenize", "--tokens", "generated")
    folder = tmp_path / "scored"
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "test.de"), "-i", str(folder / "test.hyp"), "-lc"]
    printed = subprocess.run([*command, "-w", "14", "-f", "json"], capture_output=True, text=True, check=True).stdout
    bleu = json.loads(printed)
    assert round(result["bleu"], 14) == bleu["score"] and "case:lc" in result["bleu_signature"]
    assert (folder / "test.tok.ref").read_text().splitlines() == tokens
    whole = next(line for line in (folder / "test.hyp").read_text().splitlines() if line.count("(") == 1)
    assert " )" not in whole and "( " not in whole
    assert result["bleu"] > score(tmp_path / "test.out", "--detokenize", "--tokens", "generated")["bleu"] + 1


@pytest.mark.parametrize("missing", [0, 299, 8])
def test_a_dropped_sentence_is_an_error(generated: Path, missing: int, capsys: pytest.CaptureFixture) -> None:
    kept = [line for line in generated.read_text().splitlines() if not line[1:].startswith(f"-{missing}\t")]
    generated.write_text("\n".join(kept) + "\n")
    assert main(["score", str(generated), "--ref", str(generated.parent / "test.de")]) == 2
    error = capsys.readouterr().err
    assert f"first missing ids are [{missing}]" in error and "--required-batch-size-multiple 1" in error


def test_length_penalty_is_chosen_on_the_validation_set(tmp_path: Path) -> None:
    """Each sentence has a short likely and a long less likely hypothesis; by hand, the long one wins from 1.0 on."""
    refs = references(40)
    short = [" ".join(line.split()[:4]) for line in refs]
    texts = {i: [short[i], refs[i]] for i in range(40)}
    # score x length^1 is the log-probability; short: 5 tokens, long: len + 1
    scores = {i: [-1.0, -((5 / (len(refs[i].split()) + 1)) ** 0.1)] for i in range(40)}
    valid = write_generation(tmp_path / "valid.out", texts, refs, scores)
    test = write_generation(tmp_path / "test.out", {i: texts[i] for i in range(40)}, refs, scores)
    (tmp_path / "test.de").write_text("\n".join(refs) + "\n")
    grid = ["--lenpens", "0.5", "0.85", "0.95", "1.5"]
    result = score(test, "--tune", str(valid), "--tune-ref", str(tmp_path / "test.de"), *grid)
    # log-probabilities -5 and -5 (L/5)^0.9: the long one wins if penalty > 0.9
    assert [round(value) for value in result["valid_bleu_by_lenpen"].values()][2:] == [100, 100]
    assert max(list(result["valid_bleu_by_lenpen"].values())[:2]) < 50
    assert result["lenpen"] == 0.95 and result["bleu"] == pytest.approx(100)


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "train.log").write_text("nothing of the kind\n")
    assert main(["score", str(tmp_path / "train.log")]) == 2
    assert "holds no hypotheses" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "absent.out")]) == 2
