"""The study of where a regulariser pays: budgets, what is trained, and its table, on runs that were never trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

import pytest
import sacrebleu

from fairseq_adv.cli.main import main
from fairseq_adv.experiments import regime
from fairseq_adv.experiments.jobs import Run
from fairseq_adv.experiments.regime_results import gains

REFERENCES = [f"the light number {n} in room {n % 7} is on" for n in range(40)]
UPDATES_PER_EPOCH, WORDS_PER_BATCH = 10, 50.0


def value(words: Sequence[object], option: str) -> str:
    found = [str(word) for word in words]
    return found[len(found) - found[::-1].index(option)]


def train(command: Sequence[object]) -> None:
    """Leave a done run alone; else leave what train_small.sh does. On validation plain is best with dropout 0.1."""
    run, method = Path(str(command[3])), str(command[4])
    if (run / "done").is_file():
        return
    words = [str(word) for word in command]
    is_scout = "--patience" in words
    last = 60 if is_scout else int(value(words, "--max-update"))
    dropout = value(words, "--dropout")
    bleu = {("plain", "0.1"): 9.0, ("rdrop", "0.3"): 9.5}.get((method, dropout), 8.0)
    lines = ["D | INFO | fairseq_cli.train | num. shared model params: 120,000 (num. trained: 120,000)"]
    for epoch in range(1, last // UPDATES_PER_EPOCH + 1):
        done = epoch * UPDATES_PER_EPOCH
        best = bleu if done == 40 or not is_scout else 1.0  # the scout is best after 40 updates
        told: Dict[str, Any] = {"epoch": epoch, "train_num_updates": str(done), "train_wpb": str(WORDS_PER_BATCH)}
        lines.append(
            f"D | INFO | train | {json.dumps({**told, 'train_wall': str(done * (2 if method != 'plain' else 1))})}"
        )
        checked = {"epoch": epoch, "valid_loss": "5", "valid_nll_loss": "4", "valid_bleu": str(best)}
        lines.append(f"D | INFO | valid | {json.dumps({**checked, 'valid_num_updates': str(done)})}")
    selection = {"_name": None, "best_checkpoint_metric": "bleu", "maximize_best_checkpoint_metric": True}
    config = {"_name": None, "checkpoint": selection}
    (run / "train.log").write_text(f"D | INFO | fairseq_cli.train | {config}\n" + "\n".join(lines) + "\n")
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints/checkpoint_best.pt").touch()
    (run / "run.json").write_text(json.dumps({"method": value(words, "--name"), "seed": int(value(words, "--seed"))}))
    (run / "cpu-seconds").write_text("7.5 0.5\n" if method == "plain" else "8 1\n0.9 0.1\n")  # in two attempts
    (run / "done").touch()


def score(run: Path) -> None:
    """Seven sentences of each run are wrong, but only one of rdrop with dropout 0.1 is."""
    wrong = 1 if run.name.startswith("rdrop-0.1") else 7
    hypotheses = ["something else"] * wrong + REFERENCES[wrong:]
    (run / "test.hyp").write_text("\n".join(hypotheses) + "\n")
    (run / "test.ref").write_text("\n".join(REFERENCES) + "\n")
    bleu = sacrebleu.corpus_bleu(hypotheses, [REFERENCES]).score
    told = {"bleu": bleu, "chrf": 50.0, "bleu_signature": "case:mixed|tok:13a"}
    (run / "score.json").write_text(json.dumps(told))


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> List[List[str]]:
    """The commands that the study gave, each made up instead of run."""
    given: List[List[str]] = []

    def finish(runs: Sequence[Run], *_: object) -> int:
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            for command in run.commands():
                words = [str(word) for word in command]
                given.append(words)
                if words[1].endswith("train_small.sh"):
                    train(words)
                elif "evaluate" in words:
                    score(run.folder)
                else:
                    nll = {"train": "3.25", "valid": "4.00"}
                    lines = [f'D | INFO | {n} | {{"{n}_nll_loss": "{v}"}}\n' for n, v in nll.items()]
                    (run.folder / "losses.log").write_text("".join(lines))
        return 0

    monkeypatch.setattr(regime, "finish", finish)
    return given


@pytest.fixture
def text(tmp_path: Path) -> Path:
    for name in ("bin", "raw"):
        (tmp_path / "en-de-9" / name).mkdir(parents=True)
    (tmp_path / "en-de-9/neighbors-seed1.safetensors").touch()
    return tmp_path / "en-de-9"


VARIANTS = ["plain-0.2=plain --dropout 0.2", "plain-0.1=plain --dropout 0.1"]
VARIANTS += ["rdrop-0.1=rdrop --dropout 0.1", "rdrop-0.3=rdrop --dropout 0.3"]


def study(text: Path, *words: object) -> int:
    output = ["--output", text.parent / "out", "--validate-interval", 1]
    return main([str(word) for word in ("study", "regime", text, *words, *output)])


def test_budgets_come_from_plain_trainings_plateau_and_cost_the_same(text: Path, done: List[List[str]]) -> None:
    assert study(text, "--times", 2.5, "--variants", *VARIANTS, "--sizes", "1x32", "--lr", 0.004) == 0
    trained = [words for words in done if words[1].endswith("train_small.sh")]
    assert "--patience" in trained[0] and value(trained[0], "--name") == "plain-0.2"
    limits = {value(words, "--name"): int(value(words, "--max-update")) for words in trained[1:]}
    assert limits == {"plain-0.2": 100, "plain-0.1": 100, "rdrop-0.1": 50, "rdrop-0.3": 50}, (
        "2.5 × 40, half for two passes"
    )
    for words in trained[1:]:
        assert value(words, "--total-num-update") == value(words, "--max-update")
        assert int(value(words, "--warmup-updates")) == limits[value(words, "--name")] // 4
    for words in trained:
        assert value(words, "--lr") == "0.008", "0.004 at width 128, √4 times as much at 32"
        assert value(words, "--encoder-layers") == value(words, "--decoder-layers") == "1"
        assert value(words, "--encoder-embed-dim") == "32" and value(words, "--decoder-ffn-embed-dim") == "64"


def test_each_method_stands_with_its_best_on_validation(text: Path, done: List[List[str]], capsys: Any) -> None:
    assert study(text, "--updates", 80, "--variants", *VARIANTS) == 0
    rows = json.loads((text.parent / "out/regime.json").read_text())
    assert [row["variant"] for row in rows] == ["plain-0.1", "rdrop-0.3"], "rdrop-0.1 is better on the test set alone"
    assert rows[1]["differences"][0]["difference"] == 0.0 and rows[0]["differences"] == []
    tokens = UPDATES_PER_EPOCH * WORDS_PER_BATCH
    assert {(row["parameters"], row["target_tokens"]) for row in rows} == {(120_000, tokens)}
    assert [row["gap"] for row in rows] == [[0.75], [0.75]] and rows[1]["cpu"] == [1.25]
    printed = capsys.readouterr().out
    assert "| en-de-9 | 2x128 | 240 | rdrop-0.3 | 1 | 40 | 9.5 |" in printed and "+0.0 [+0.0, +0.0]" in printed
    assert (text.parent / "out/regime.png").read_bytes()[:4] == b"\x89PNG"
    assert (text.parent / "out/regime.md").read_text() == printed


def test_the_difference_is_the_test_sets(text: Path, done: List[List[str]]) -> None:
    assert study(text, "--updates", 80, "--variants", VARIANTS[0], VARIANTS[2]) == 0
    row = json.loads((text.parent / "out/regime.json").read_text())[1]
    scores = [sacrebleu.corpus_bleu(["something else"] * n + REFERENCES[n:], [REFERENCES]).score for n in (7, 1)]
    (found,) = row["differences"]
    assert found["difference"] == pytest.approx(scores[1] - scores[0], abs=0.01)
    assert 0 < found["low"] < found["difference"] < found["high"], "six sentences that only one has right"
    ratio = 120_000 / (UPDATES_PER_EPOCH * WORDS_PER_BATCH)
    assert gains([row]) == {"rdrop": [(ratio, found["difference"], found["low"], found["high"])]}


def test_what_is_done_is_not_done_again(text: Path, done: List[List[str]]) -> None:
    words = ("--variants", "plain=plain --dropout 0.1", "arch=arch --dropout 0.1", "--seeds", 1)
    assert study(text, *words) == 0
    steps = len(done)
    assert study(text, *words) == 0
    again = done[steps:]
    assert [each[1].rpartition("/")[2] for each in again] == ["train_small.sh"] * 3, "which leaves a done run alone"
    limit = int(value(again[1], "--max-update"))
    assert limit == 3 * 40 and value(again[2], "--max-update") == str(round(limit / 2.15))


def test_a_budget_for_each_text(text: Path, done: List[List[str]]) -> None:
    other = text.with_name("en-de-8")
    for name in ("bin", "raw"):
        (other / name).mkdir(parents=True)
    assert study(text, other, "--updates", 80, 40, "--sizes", "1x32", "2x32", "--variants", VARIANTS[0]) == 0
    trained = [words for words in done if words[1].endswith("train_small.sh")]
    found = [(Path(words[3]).parts[-5], Path(words[3]).parts[-3], value(words, "--max-update")) for words in trained]
    assert found == [(name, size, n) for name, n in (("en-de-9", "80"), ("en-de-8", "40")) for size in ("1x32", "2x32")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "128"], "--sizes takes LAYERSxWIDTH, the width a multiple of 4, such as 2x128, got '128'"),
        (["--sizes", "2x30"], "the width a multiple of 4"),
        (["--times", "0"], "--times must be positive, got 0.0"),
        (["--updates", "-3"], "--updates takes a positive number for all texts or one for each, got -3"),
        (["--updates", "5", "6"], "--updates takes a positive number for all texts or one for each, got 5 6"),
        (["--variants", "plain", "plain=plain --dropout 0.1"], "--variants has a name twice: plain plain"),
        (["--variants", "plain", "conadv"], "--prices has to tell what an update of conadv costs: conadv:2"),
        (["--prices", "arch:dear"], "--prices takes NAME:PRICE, such as arch-2:1.6, got arch:dear"),
        (["--prices", "smart:4"], "--prices smart:4 is of none of the variants: plain, arch, rdrop, simcut"),
    ],
)
def test_refusals(text: Path, done: List[List[str]], capsys: Any, words: List[str], message: str) -> None:
    assert study(text, *words) == 2
    assert message in capsys.readouterr().err and not done


def test_a_folder_that_was_not_prepared_is_told(tmp_path: Path, done: List[List[str]], capsys: Any) -> None:
    assert study(tmp_path / "away") == 2 and "prepare it with scripts/quickstart.sh" in capsys.readouterr().err
