"""The page in a real browser, where one is installed: every picture is decoded, and the table is seen whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fairseq_adv.cli.main import main
from tests.unit.report.fake_runs import write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCORE = {"bleu": 20.512, "chrf": 44.01, "tokenized_bleu": 19.9, "brevity_ratio": 0.913, "lenpen": 1.2}
# What the page looks like from inside, once everything is loaded: written into the title, which the browser prints.
LOOK = """<script>addEventListener("load", () => {
  const table = document.querySelector("table"), box = table.parentElement;
  document.title = JSON.stringify({
    pictures: [...document.images].map(image => image.complete && image.naturalWidth),
    hidden: box.scrollWidth - box.clientWidth, sideways: document.body.scrollWidth - innerWidth,
    loaded: performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length,
  });
});</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_all_pictures_and_columns_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = []
    for method in ("plain", "arch-perturbed"):
        for seed in (1, 2, 3):
            score = {key: value + seed / 7 for key, value in SCORE.items()}
            runs.append(str(write_run(tmp_path / f"{method}-{seed}", method, seed, score=score)))
    assert main(["report", *runs, "--output", str(tmp_path / "report")]) == 0
    capsys.readouterr()
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    (tmp_path / "looked.html").write_text(page.replace("</head>", LOOK + "</head>"), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "looked.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    seen = json.loads(re.search(r"<title>(.*?)</title>", shown)[1])  # type: ignore[index]
    assert len(seen["pictures"]) == 5 and min(seen["pictures"]) > 1000
    assert (seen["hidden"], seen["loaded"]) == (0, 0) and seen["sideways"] <= 0
