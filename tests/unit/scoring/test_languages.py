"""BLEU's tokeniser by language, and lines of references as sacrebleu counts them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.scoring import significance
from fairseq_adv.scoring.languages import bleu_metric, tokenizer_for
from tests.unit.scoring.test_bleu import write_generation

CHINESE = ["今天天气很好我们去公园散步吧", "请在这里输入您的用户名和密码", "设备已连接到家庭网络并正常工作"] * 5
NEARLY = [line.replace("很", "真").replace("您", "你").replace("并", "且") for line in CHINESE]


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("de", "13a"), ("zh", "zh"), ("zh_CN", "zh"), ("zh-Hans", "zh"), ("ja", "ja-mecab"), ("KO", "ko-mecab")],
)
def test_tokenizer_by_language(language: str, tokenizer: str) -> None:
    assert tokenizer_for(language) == tokenizer


def scored(folder: Path, lang: str, hypotheses: List[str], references: List[str], *more: str) -> Dict:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"test.{lang}").write_text("".join(line + "\n" for line in references), encoding="utf-8")
    generated = write_generation(folder / "test.out", {i: [h] for i, h in enumerate(hypotheses)}, references)
    words = [str(generated), "--ref", str(folder / f"test.{lang}"), "--output", str(folder), "--tokens", "generated"]
    assert main(["score", *words, *more]) == 0
    return json.loads((folder / "score.json").read_text())


def test_chinese_is_scored_by_characters_and_says_so(tmp_path: Path) -> None:
    from sacrebleu.metrics import BLEU

    result = scored(tmp_path, "zh", NEARLY, CHINESE)
    assert result["bleu"] == BLEU(tokenize="zh").corpus_score(NEARLY, [CHINESE]).score
    assert result["bleu"] > 30 and "tok:zh" in result["bleu_signature"]
    assert scored(tmp_path / "13a", "zh", NEARLY, CHINESE, "--sacrebleu-tokenize", "13a")["bleu"] < 1


def test_the_length_penalty_is_chosen_by_the_same_tokeniser(tmp_path: Path) -> None:
    valid = write_generation(tmp_path / "valid.out", {i: [h, h[:4]] for i, h in enumerate(NEARLY)}, CHINESE)
    result = scored(tmp_path, "zh", NEARLY, CHINESE, "--tune", str(valid))
    assert result["valid_bleu"] > 30


def test_the_bootstrap_uses_the_tokeniser_of_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, hypotheses in (("plain-seed1", [h[:8] for h in NEARLY]), ("arch-seed1", NEARLY)):
        scored(tmp_path / name, "zh", hypotheses, CHINESE)
    systems = [significance.read_system(str(tmp_path / name)) for name in ("plain-seed1", "arch-seed1")]
    found = significance.paired_bootstrap(systems[0], systems[1], samples=50)["bleu"]
    assert found["difference"] == pytest.approx(systems[1].scores["bleu"] - systems[0].scores["bleu"], abs=0.01)
    assert found["difference"] > 5

    scored(tmp_path / "arch-seed1", "zh", NEARLY, CHINESE, "--sacrebleu-tokenize", "char")
    assert main(["compare", *(str(tmp_path / name) for name in ("plain-seed1", "arch-seed1"))]) == 2
    assert "tokeniser char" in capsys.readouterr().err


def test_an_older_score_tells_its_tokeniser_by_the_signature(tmp_path: Path) -> None:
    scored(tmp_path, "zh", NEARLY, CHINESE, "--lowercase")
    result = json.loads((tmp_path / "score.json").read_text())
    del result["sacrebleu_tokenize"]
    (tmp_path / "score.json").write_text(json.dumps(result))
    system = significance.read_system(str(tmp_path))
    assert (system.tokenizer, system.lowercase) == ("zh", True)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("MeCab", "ipadic"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "sacrebleu.tokenizers.tokenizer_ja_mecab", raising=False)
    with pytest.raises(ValueError, match=r"ja-mecab for ja is not installed: pip install 'sacrebleu\[ja\]'"):
        bleu_metric("ja-mecab", language="ja")
    with pytest.raises(ValueError, match="--sacrebleu-tokenize must be one of"):
        bleu_metric("jieba")


def test_a_carriage_return_in_a_reference_is_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = [f"Satz Nummer {number} ist da" for number in range(30)]
    with_return = [*references]
    with_return[4] = "Satz Nummer\r4 ist da"
    result = scored(tmp_path, "de", references, references)
    (tmp_path / "test.de").write_bytes("".join(line + "\n" for line in with_return).encode())
    words = [str(tmp_path / "test.out"), "--ref", str(tmp_path / "test.de"), "--tokens", "generated", "--json"]
    capsys.readouterr()
    assert main(["score", *words]) == 0
    assert json.loads(capsys.readouterr().out)["bleu"] == pytest.approx(result["bleu"])


@pytest.mark.parametrize(
    ("lines", "message"), [(29, "the translations are longer, by 1"), (31, "the references are longer, by 1")]
)
def test_which_side_is_longer(tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: int, message: str) -> None:
    references = [f"Satz Nummer {number} ist da" for number in range(30)]
    generated = write_generation(tmp_path / "test.out", {i: [r] for i, r in enumerate(references)}, references)
    (tmp_path / "test.de").write_text("Satz\n" * lines)
    assert main(["score", str(generated), "--ref", str(tmp_path / "test.de")]) == 2
    assert message in capsys.readouterr().err
