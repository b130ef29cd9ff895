"""The table of results in its four forms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import List

from fairseq_adv.report.runs import load_runs
from fairseq_adv.report.table import result_rows, to_json, to_latex, to_markdown, to_text
from tests.unit.report.fake_runs import write_run


def example(folder: Path) -> List[str]:
    """ARCH of one seed given first, plain of two."""
    return [
        str(write_run(folder / "a", "arch", 1, (7.0, 5.5), 20, score={"bleu": 21.456, "chrf": 50.0})),
        str(write_run(folder / "b", "plain", 1, (7.0, 6.0), 8, score={"bleu": 20.0, "chrf": 48.0})),
        str(write_run(folder / "c", "plain", 2, (7.0, 6.2), 12, score={"bleu": 23.0})),
    ]


def test_means_deviations_and_times(tmp_path: Path) -> None:
    plain, arch = result_rows(load_runs(example(tmp_path)))
    assert (plain.method, plain.seeds, arch.method) == ("plain", [1, 2], "arch")
    assert plain.cells["bleu"].mean == 21.5
    assert math.isclose(plain.cells["bleu"].deviation, math.sqrt(((20 - 21.5) ** 2 + (23 - 21.5) ** 2) / 1))
    assert plain.cells["chrf"].mean == 48 and math.isnan(plain.cells["chrf"].deviation)
    assert math.isclose(plain.cells["valid_nll"].mean, 6.1) and arch.cells["valid_nll"].mean == 5.5
    assert arch.relative_time == 2.0 and plain.relative_time == 1.0


def test_text_markdown_latex_and_json(tmp_path: Path) -> None:
    rows = result_rows(load_runs(example(tmp_path)))
    head, plain, arch = to_text(rows).splitlines()
    assert head.split("  ")[0] == "method" and "brevity" not in head
    assert "21.50 ± 2.12" in plain and "  1.00×  " in plain and "  2.00×  " in arch
    markdown = to_markdown(rows).splitlines()
    assert markdown[2].startswith("| plain | 2 | 21.50 ± 2.12 | 48.00 |")
    assert {text.count("|") for text in markdown} == {markdown[0].count("|")}
    latex = to_latex(rows)
    assert r"plain & 2 & 21.50 $\pm$ 2.12 & 48.00" in latex and latex.count(r"\\") == 3
    told = json.loads(json.dumps(to_json(rows), allow_nan=False))
    assert told[1]["bleu"] == 21.456 and told[1]["bleu_sd"] is None and told[0]["brevity_ratio"] is None


def test_without_plain_the_first_method_is_the_measure(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", "r3f_x", 1, (7.0,), 10), write_run(tmp_path / "b", "arch", 1, (7.0,), 25)]
    rows = result_rows(load_runs([str(run) for run in runs]))
    assert rows[1].relative_time == 2.5
    assert "time / r3f" in to_text(rows) and r"r3f\_x" in to_latex(rows)
