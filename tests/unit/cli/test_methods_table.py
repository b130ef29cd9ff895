"""docs/methods.md says what the code says."""

import pytest

from fairseq_adv.cli import methods_table


def test_the_page_holds_the_table_of_today() -> None:
    page = methods_table.PAGE.read_text(encoding="utf-8")
    assert methods_table.with_table(page, "\n".join(methods_table.rows())) == page, (
        "run: python scripts/methods_table.py --write"
    )


def test_a_method_that_nobody_described_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(methods_table.ABOUT, "r3f")
    with pytest.raises(ValueError, match="r3f"):
        methods_table.rows()
