"""Files and functions stay short in the whole repository, and mypy reads all of its Python."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES, FUNCTION_LINES = 250, 60


def programs(*endings: str) -> Iterator[Path]:
    """Files of the repository, without environments, caches and what training leaves."""
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT).parts
        left_out = inside[0] in ("work", "build") or any(part.startswith(".") for part in inside[:-1])
        if path.suffix in endings and not left_out:
            yield path


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(source: str) -> Iterator[Tuple[str, int]]:
    """Name and lines of each function, from ``def`` to its end."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_longer_than_a_few_screens() -> None:
    assert [name(path) for path in programs(".py", ".sh") if length(path) > LINES] == []


def test_no_function_is_longer_than_a_screen() -> None:
    long: List[str] = []
    for path in programs(".py"):
        found = functions(path.read_text(encoding="utf-8"))
        long += [f"{name(path)}: {function}, {lines} lines" for function, lines in found if lines > FUNCTION_LINES]
    assert long == []


def test_all_python_is_type_checked() -> None:
    listed = re.search(r"\[tool\.mypy\].*?^files = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S | re.M)
    assert listed is not None
    checked = set(re.findall(r'"([^"]+)"', listed[1]))
    places = {path.relative_to(ROOT).parts[0] for path in programs(".py")}
    assert places == checked


@pytest.mark.parametrize(("body", "lines"), [("    pass\n", 2), ("    x = 1\n\n    def g():\n        pass\n", 5)])
def test_how_a_function_is_measured(body: str, lines: int) -> None:
    assert dict(functions(f"@decorated\ndef f():\n{body}"))["f"] == lines
