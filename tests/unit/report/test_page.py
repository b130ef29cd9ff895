"""A report on disk: whole, self-contained, with a figure for all that was logged and none for what was not."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import List, Tuple

import pytest

from fairseq_adv.cli.main import main
from tests.unit.report.fake_runs import write_run

SCORE = {"bleu": 20.5, "chrf": 44.0, "brevity_ratio": 0.91, "bleu_signature": "nrefs:1|case:mixed|tok:13a"}


class Tags(HTMLParser):
    """Opening tags with their attributes; complains about nesting that does not close."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: List[Tuple[str, dict]] = []
        self.stack: List[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.opened.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


@pytest.fixture
def runs(tmp_path: Path) -> List[str]:
    return [
        str(write_run(tmp_path / "runs/plain-1", "plain", 1, score=SCORE)),
        str(write_run(tmp_path / "runs/plain-2", "plain", 2, score=SCORE)),
        str(write_run(tmp_path / "runs/arch-1", "arch", 1, score=SCORE)),
        str(write_run(tmp_path / "runs/arch-3", "arch", 3, eps=0.3)),
    ]


def test_page_embeds_its_figures_and_loads_nothing(
    runs: List[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "report"
    assert main(["report", *runs, "--output", str(output), "--title", "R&D <test>", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["page"] == str(output / "index.html") and [row["method"] for row in told["rows"]] == ["plain", "arch"]
    page = (output / "index.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert tags.stack == []
    sources = [attributes["src"] for tag, attributes in tags.opened if tag == "img"]
    pngs = {path.name: path.read_bytes() for path in output.glob("*.png")}
    assert set(pngs) == {
        "quality_over_time.png", "learning_curves.png", "epoch_cost.png", "gradient_norm.png", "perturbation.png",
        "parameter_study.png",
    }  # fmt: skip
    embedded = [base64.b64decode(source.split(",", 1)[1]) for source in sources]
    assert sorted(embedded) == sorted(pngs.values()) and all(png.startswith(b"\x89PNG") for png in embedded)
    assert not re.search(r"https?://|<script|<link|url\(", page)
    assert "<title>R&amp;D &lt;test&gt;</title>" in page and str(SCORE["bleu_signature"]) in page
    assert json.loads((output / "results.json").read_text()) == told["rows"]
    assert not list(output.glob("*.partial"))


def test_plain_training_alone_gets_no_empty_figures(
    runs: List[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["report", runs[0], "--output", str(tmp_path / "report")]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("plain")
    names = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert "perturbation.png" not in names and "parameter_study.png" not in names and "epoch_cost.png" in names


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(tmp_path / "nothing"), "--output", str(tmp_path / "report")]) == 2
    assert "fairseq-adv report: no run at" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
