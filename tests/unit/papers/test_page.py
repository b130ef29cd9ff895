"""The pages of docs/ hold the tables of the package as they are."""

from __future__ import annotations

import pytest

from fairseq_adv.papers.choices import CHOICES
from fairseq_adv.papers.page import DOCS, TABLES, with_tables


@pytest.mark.parametrize("name", list(TABLES))
def test_no_page_is_stale(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert with_tables(page, TABLES[name]) == page, "run: python -m fairseq_adv.papers.page --write"


def test_a_missing_place_is_named() -> None:
    with pytest.raises(ValueError, match="no place for the table choices"):
        with_tables("nothing", TABLES["methods.md"][1:])


def test_every_alternative_to_a_choice_is_an_option() -> None:
    import fairseq_adv.cli.neighbors as neighbors
    from fairseq_adv.cli.options import own_components

    known = {option.name for component in own_components() for option in component.options}
    import argparse

    parser = argparse.ArgumentParser()
    neighbors.add_arguments(parser)
    known |= {word for action in parser._actions for word in action.option_strings}
    assert {choice.option for choice in CHOICES if choice.option} <= known
