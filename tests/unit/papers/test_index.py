"""Commands in the index of the papers' results parse, files exist, and options are options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from fairseq_adv.cli.main import parse
from fairseq_adv.cli.options import own_components
from fairseq_adv.papers.index import ARCH, CONADV, Item
from fairseq_adv.papers.results import Batch, results

ROOT = Path(__file__).resolve().parents[3]
ITEMS = [item for item in (*ARCH, *CONADV) if item.ours]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.item} {item.what}")
def test_what_it_names_is_there(item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(item.ours)
    if words[0] == "fairseq-adv":
        assert parse(words[1:]).full_name == words[1]
        return
    if words[0] in ("bash", "python"):
        assert (ROOT / words[1]).is_file()
        return
    components = own_components()
    known = {option.name for component in components for option in component.options}
    names = {component.name for component in components}
    for option, value in zip(words[::2], words[1::2] if len(words) > 1 else [""]):
        assert option in known or option == "--criterion", option
        if option == "--criterion":
            assert value in names
        choices = {c for o in (o for k in components for o in k.options if o.name == option) for c in o.choices or ()}
        assert not choices or value in choices, f"{option} {value}"


def test_every_result_that_can_be_reproduced_is_in_the_index() -> None:
    asked = {word for item in ITEMS for word in shlex.split(item.ours) if item.ours.startswith("fairseq-adv reproduce")}
    assert {result.name for result in results(Batch())} <= asked


def test_what_has_no_command_says_why() -> None:
    assert all(item.ours or item.status.startswith("not ") for item in (*ARCH, *CONADV))
