"""``fairseq-adv doctor`` on a complete environment and on broken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Sequence

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.compat import PATCHES

ROOT = Path(__file__).resolve().parents[3]

# Runs the command in an interpreter in which the modules named first are not installed.
HIDE = """
import sys
from importlib.machinery import PathFinder

hidden = set(sys.argv[1].split(","))

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in hidden else PathFinder.find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
from fairseq_adv.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def run_without(modules: Sequence[str], *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDE, ",".join(modules), *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)


def facts_without(*modules: str) -> Dict[str, Any]:
    done = run_without(modules, "doctor", "--json")
    facts = json.loads(done.stdout)
    assert facts["ok"] == (done.returncode == 0), done.stderr
    facts["by_module"] = {package["module"]: package for package in facts["packages"]}
    return facts


def test_complete_environment_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    by_module = {package["module"]: package for package in facts["packages"]}
    assert facts["ok"] and facts["python"]["version"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert by_module["torch"]["version"] == torch.__version__
    assert by_module["fairseq"]["distribution"] in ("ve-fairseq", "fairseq-fixed", "fairseq", "source tree")
    assert [patch["symbol"] for patch in facts["patches"]] == [patch.symbol for patch in PATCHES]
    assert all(patch["applied"] and patch["reason"] for patch in facts["patches"])
    assert facts["gpu"]["names"] == [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    assert facts["directory"] == {**facts["directory"], "path": str(Path.cwd()), "writable": True}


def test_text_shows_versions_and_repairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("python", "torch", "fairseq", "GPU", "directory", "repairs of fairseq", *(p.symbol for p in PATCHES)):
        assert word in out


def test_without_fairseq_it_says_how_to_install_it() -> None:
    facts = facts_without("fairseq", "faiss")
    assert not facts["ok"]
    assert facts["by_module"]["fairseq"]["mend"] == f'pip install -e "{ROOT}[fairseq]"'
    assert facts["by_module"]["faiss"]["mend"] == f'pip install -e "{ROOT}[knn]"'
    assert [patch["applied"] for patch in facts["patches"]] == [False] * len(PATCHES)


def test_optional_packages_may_be_missing() -> None:
    facts = facts_without("faiss", "transformers", "matplotlib", "tensorboardX")
    assert facts["ok"]
    missing = [module for module, package in facts["by_module"].items() if package["version"] is None]
    assert missing == ["faiss", "transformers", "matplotlib", "tensorboardX"]


def test_without_torch_it_still_runs() -> None:
    done = run_without(["torch"], "doctor")
    assert done.returncode == 1
    assert f'torch         MISSING (training): pip install -e "{ROOT}"' in done.stdout


def test_a_fairseq_that_does_not_import_is_reported() -> None:
    facts = facts_without("omegaconf")
    assert not facts["ok"]
    assert "omegaconf" in facts["patches_error"]


def test_a_directory_without_write_permission(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["doctor"]) == 1
    assert "NOT WRITABLE" in capsys.readouterr().out
