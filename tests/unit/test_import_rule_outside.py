"""What lies beside the package imports it from above, and finds every module where Python finds it by itself."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Dict, List, Set

import pytest

from tests.unit.test_import_rule import imports_of
from tests.unit.test_sizes import ROOT, name, programs

pytestmark = pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names")

# folder (or file) -> what its Python may import beside Python's own modules
MAY_IMPORT: Dict[str, Set[str]] = {
    "setup.py": {"setuptools"},
    "scripts": {"fairseq_adv.cli.main", "fairseq_adv.cli.methods_table"},
    "benchmarks": {"fairseq_adv", "fairseq", "fairseq_cli", "torch", "numpy", "safetensors", "tqdm", "matplotlib"},
    "tests": {
        *("tests", "benchmarks", "fairseq_adv", "fairseq", "fairseq_cli", "torch", "numpy", "pytest", "_pytest"),
        *(
            "faiss",
            "hydra",
            "matplotlib",
            "omegaconf",
            "tqdm",
            "sacrebleu",
            "sacremoses",
            "safetensors",
            "sentencepiece",
        ),
        *("scipy", "sklearn", "subword_nmt", "transformers", "timm", "pytorch_optimizer"),
    },
}
NOT_YET = {"benchmarks/conadv_placement.py"}
OUTSIDE = [path for path in programs(".py") if name(path).split("/")[0] != "fairseq_adv"]


def violations(path: Path, source: str) -> List[str]:
    allowed, found = MAY_IMPORT[name(path).split("/")[0]], []
    for module, _, line in imports_of(source, path):
        top = module.split(".")[0]
        beside = name(path).startswith("benchmarks/") and (path.parent / f"{module}.py").is_file()
        if top not in sys.stdlib_module_names | {"__future__"} and not {top, module} & allowed and not beside:
            found.append(f"{name(path)}:{line}: may not import {module}")
    return found


def changes_of_the_search_path(source: str) -> List[int]:
    """Lines that name ``sys.path`` (or ``PYTHONPATH``)."""
    nodes = ast.walk(ast.parse(source))
    return [
        node.lineno
        for node in nodes
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path")
        or (isinstance(node, ast.Constant) and node.value == "PYTHONPATH")
    ]


@pytest.mark.parametrize("path", OUTSIDE, ids=name)
def test_imports_of_what_lies_outside(path: Path) -> None:
    assert violations(path, path.read_text(encoding="utf-8")) == []


def test_no_search_path_is_changed_outside_tests() -> None:
    sources = {name(path): path.read_text(encoding="utf-8") for path in programs(".py") if "tests/" not in name(path)}
    assert [place for place, source in sources.items() if changes_of_the_search_path(source)] == []
    shell = [name(path) for path in programs(".sh") if "PYTHONPATH" in path.read_text(encoding="utf-8")]
    assert shell == []


def test_scripts_are_a_few_lines_that_call_the_command() -> None:
    for path in programs(".py"):
        if name(path).startswith("scripts/"):
            source = path.read_text(encoding="utf-8")
            assert len(source.splitlines()) <= 15 and "main(" in source, name(path)


@pytest.mark.parametrize(
    ("place", "source", "allowed"),
    [
        ("scripts/score_bleu.py", "from fairseq_adv.cli.main import main", True),
        ("scripts/score_bleu.py", "from fairseq_adv.scoring import bleu", False),
        ("scripts/score_bleu.py", "import numpy", False),
        ("benchmarks/step_time.py", "def f():\n    from tests.integration import running", False),
        ("benchmarks/step_time.py", "from fairseq_adv.cache import open_cache", True),
        ("benchmarks/step_time.py", "from machine import describe_machine", True),  # Python looks beside a program
        ("scripts/score_bleu.py", "import run_grid", False),
        ("tests/unit/toy_models.py", "import tests.unit", True),
        ("tests/unit/toy_models.py", "import running", False),
        ("setup.py", "import torch", False),
    ],
)
def test_the_rule_itself(place: str, source: str, allowed: bool) -> None:
    assert (violations(ROOT / place, source) == []) == allowed


@pytest.mark.parametrize(
    "source", ["import sys\nsys.path.insert(0, 'x')", "import sys\nsys.path += []", "x = {'PYTHONPATH': '.'}"]
)
def test_a_changed_search_path_is_noticed(source: str) -> None:
    assert changes_of_the_search_path(source)
