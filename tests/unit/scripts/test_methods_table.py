"""docs/methods.md says what the code says."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("methods_table", ROOT / "scripts" / "methods_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_table_of_today(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.with_table(page, "\n".join(script.rows())) == page, "run: python scripts/methods_table.py --write"


def test_a_method_that_nobody_described_is_an_error(script, monkeypatch):
    monkeypatch.delitem(script.ABOUT, "r3f")
    with pytest.raises(ValueError, match="r3f"):
        script.rows()
