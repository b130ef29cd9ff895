"""docs/dependencies.md has a line for each requirement of setup.py and names parts that exist; doctor looks for all."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any, Dict, List, Set

import pytest

from fairseq_adv.cli.doctor import PACKAGES

ROOT = Path(__file__).resolve().parents[3]


def tables() -> List[List[List[str]]]:
    """Cells of the page's tables, without their heads."""
    found: List[List[List[str]]] = []
    for line in (ROOT / "docs/dependencies.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|---"):
            found.append([])
        elif line.startswith("|") and found and not line.startswith(("| package", "| part")):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


@pytest.fixture
def required(monkeypatch: pytest.MonkeyPatch) -> Dict[str, Set[str]]:
    """Package -> the extras that ask for it; '' for the base install."""
    told: Dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **keywords: told.update(keywords))
    monkeypatch.setattr("setuptools.find_packages", lambda **keywords: [])
    runpy.run_path(str(ROOT / "setup.py"))
    found: Dict[str, Set[str]] = {}
    for extra, requirements in {"": told["install_requires"], **told["extras_require"]}.items():
        for requirement in requirements:
            name = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert name is not None
            found.setdefault(name[0], set()).add(extra)
    return found


def test_every_requirement_has_its_line(required: Dict[str, Set[str]]) -> None:
    listed = {name.strip("`"): set(re.findall(r"`([^`]+)`", extras)) or {""} for name, extras, _ in tables()[0]}
    # dev holds the other extras too, for their tests: only what is in no other one is listed there
    assert listed == {name: extras - {"dev"} or {"dev"} for name, extras in required.items()}


def test_doctor_looks_for_whatever_users_install(required: Dict[str, Set[str]]) -> None:
    looked_for = {name for package in PACKAGES for name in package.distributions}
    assert {name for name, extras in required.items() if extras != {"dev"}} <= looked_for
    for package in PACKAGES:
        assert any(package.extra in required[name] for name in package.distributions), package


def test_what_is_written_by_hand_is_there() -> None:
    parts = [cells[0].strip("`") for cells in tables()[1]]
    assert len(parts) > 20 and len(set(parts)) == len(parts)
    assert [part for part in parts if not (ROOT / part).exists()] == []


def test_each_line_gives_a_reason() -> None:
    assert all(len(cells) == 3 and cells[2] for table in tables() for cells in table)
