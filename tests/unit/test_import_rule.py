"""The import rule: a package imports only what lies below it, and heavy or optional libraries where they are used."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set

import pytest

pytestmark = pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names")

PACKAGE = Path(__file__).resolve().parents[2] / "fairseq_adv"

# part of the package -> the other parts that it may import, at the top of a module or inside a function
MAY_IMPORT: Dict[str, Set[str]] = {
    "cli": {
        "whole_files",
        "compat",
        "criterions",
        "tasks",
        "methods",
        "data",
        "optim",
        "report",
        "corpora",
        "scoring",
        "experiments",
        "encoders",
        "probe",
        "papers",
        "cache",
        "neighbors",
        "perturb",
        "losses",
    },
    "papers": set(),
    "in_process": set(),  # beside the plugin as a whole, which it registers
    "probe": {"perturb", "scoring"},
    "tasks": {"criterions", "data", "cache", "neighbors"},
    "criterions": {"methods", "perturb", "losses"},
    "methods": {"perturb"},
    "data": {"cache", "neighbors"},
    "optim": set(),
    "models": set(),
    "encoders": {"neighbors"},
    "experiments": {"whole_files", "corpora", "neighbors", "scoring", "report", "papers"},
    "scoring": {"whole_files", "compat", "corpora"},  # compat: the list of plain types that torch's safe loader needs
    "corpora": {"whole_files"},
    "report": {"whole_files"},
    "cache": set(),
    "neighbors": set(),
    "perturb": set(),
    "losses": set(),
    "compat": set(),
    "__init__": {"compat", "criterions", "models", "optim", "tasks"},  # registers all
    "version": set(),
    "whole_files": set(),
}
USE_FAIRSEQ = {
    "cli",
    "in_process",
    "probe",
    "tasks",
    "criterions",
    "data",
    "optim",
    "models",
    "compat",
}  # these name fairseq and may repair it

# part -> third-party libraries that its modules may import at their top
AT_THE_TOP: Dict[str, Set[str]] = {
    "cli": {"numpy", "tqdm"},
    "tasks": {"torch", "numpy", "fairseq", "omegaconf"},
    "criterions": {"torch", "numpy", "fairseq", "omegaconf"},
    "methods": {"torch"},
    "data": {"torch", "numpy", "fairseq", "omegaconf", "tqdm"},
    "optim": {"torch", "numpy", "fairseq", "omegaconf"},
    "papers": set(),
    "in_process": set(),
    "models": {"torch", "fairseq"},
    "encoders": {"torch"},
    "report": set(),
    "corpora": {"tqdm"},
    "scoring": {"torch", "tqdm"},
    "experiments": set(),
    "probe": {"torch", "fairseq", "tqdm"},
    "cache": {"torch", "numpy", "safetensors", "tqdm"},
    "neighbors": {"torch", "numpy", "safetensors", "tqdm"},
    "perturb": {"torch"},
    "losses": {"torch"},
    "compat": {"torch", "numpy"},
    "__init__": set(),
    "version": set(),
    "whole_files": set(),
}
# part -> what it may import inside functions beside the above
IN_FUNCTIONS: Dict[str, Set[str]] = {
    "cli": {"torch", "fairseq", "omegaconf", "matplotlib", "sacrebleu"},
    "probe": {"sentencepiece", "subword_nmt"},
    "in_process": {"fairseq", "numpy"},
    "report": {"numpy", "matplotlib", "jinja2"},
    "corpora": {"sacremoses", "sentencepiece", "subword_nmt"},
    "scoring": {"torch", "fairseq", "numpy", "sacrebleu", "sacremoses", "scipy", "sklearn"},
    "experiments": {"matplotlib", "submitit"},
    "encoders": {"transformers", "fairseq"},
    "data": {"sentencepiece"},
    "cache": {"faiss", "transformers"},
    "neighbors": {"faiss", "transformers", "sacremoses"},
    "compat": {"fairseq", "omegaconf"},
}

# ARCH also works with fairseq's own tasks, which cannot hand it a cache: its criterion opens the cache itself.
EXCEPTIONS: Dict[str, Set[str]] = {
    "criterions/arch.py": {"data"},
    "criterions/frame/arch_setup.py": {"cache", "data", "neighbors"},
    "criterions/frame/arch_spec.py": {"cache", "neighbors"},
}


class Import(NamedTuple):
    """One imported module: its dotted name and whether the statement stands inside a function."""

    module: str
    in_function: bool
    line: int


def imports_of(source: str, path: Path = PACKAGE / "module.py") -> List[Import]:
    return list(_walk(ast.parse(source), path, in_function=False))


def _walk(node: ast.AST, path: Path, in_function: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, in_function, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{path}:{child.lineno}: write the full name instead of a relative import"
            names = [f"fairseq_adv.{alias.name}" for alias in child.names] if child.module == "fairseq_adv" else []
            yield from (Import(name, in_function, child.lineno) for name in names or [str(child.module)])
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        else:
            yield from _walk(child, path, inside)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violations(path: Path, source: str) -> List[str]:
    part, found = part_of(path), []
    ours = MAY_IMPORT[part] | {part, "version"} | ({"compat"} if part in USE_FAIRSEQ else set())
    ours |= EXCEPTIONS.get(path.relative_to(PACKAGE).as_posix(), set())
    inside = AT_THE_TOP[part] | IN_FUNCTIONS.get(part, set())
    for module, in_function, line in imports_of(source, path):
        top, _, rest = module.partition(".")
        if top == "fairseq_adv":
            target = rest.split(".")[0]
            known = not rest or target in ours or target in ("register", "__version__")
        else:
            known = (
                top in sys.stdlib_module_names
                or top == "__future__"
                or top in (inside if in_function else AT_THE_TOP[part])
            )
        if not known:
            where = "inside a function" if in_function else "at the top of a module"
            found.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {part} may not import {module} {where}")
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


def test_every_part_has_a_rule() -> None:
    assert {part_of(path) for path in MODULES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    assert violations(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("criterions/*.py")), ids=lambda path: path.name)
def test_methods_leave_divergences_to_their_head(path: Path) -> None:
    """A method names a divergence's kind; what the divergence of two outputs is, only criterions/heads knows."""
    source = path.read_text(encoding="utf-8")
    assert "masked_divergence" not in source and "token_divergence" not in source and "log_probs" not in source


def test_no_exception_outlives_its_use() -> None:
    for name, parts in EXCEPTIONS.items():
        used = {
            i.module.split(".")[1]
            for i in imports_of((PACKAGE / name).read_text())
            if i.module.startswith("fairseq_adv.")
        }
        assert parts <= used, f"{name} no longer imports {parts - used}"


@pytest.mark.parametrize(
    ("part", "source", "allowed"),
    [
        ("perturb", "import torch\nfrom torch import nn", True),
        ("perturb", "import numpy", False),
        ("losses", "from fairseq_adv.perturb import Ball", False),
        ("methods", "from fairseq_adv.losses import masked_divergence", False),
        ("methods", "def f():\n    from fairseq_adv.criterions import arch", False),
        ("criterions", "from fairseq_adv import tasks", False),
        ("tasks", "from fairseq_adv import criterions", True),
        ("neighbors", "import faiss", False),
        ("neighbors", "def f():\n    import faiss", True),
        ("report", "class A:\n    def f(self):\n        import matplotlib.pyplot", True),
        ("report", "try:\n    import matplotlib\nexcept ImportError:\n    pass", False),
        ("cache", "import fairseq", False),
        ("cli", "from fairseq import options", False),
        ("data", "from fairseq_adv import compat", True),
        ("cache", "from fairseq_adv import compat", False),
        ("criterions", "def f():\n    from fairseq_adv import scoring", False),
        ("experiments", "from fairseq_adv.scoring import bleu", True),
        ("experiments", "def f():\n    import fairseq", False),
        ("corpora", "from fairseq_adv import neighbors", False),
    ],
)
def test_the_rule_itself(part: str, source: str, allowed: bool) -> None:
    assert (violations(PACKAGE / part / "module.py", source) == []) == allowed
