"""The package as a wheel installs it: built from a copy of the sources, in an environment away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import List, NamedTuple

from tests.integration.running import ROOT


def built_wheel(folder: Path) -> Path:
    """A wheel of the sources as they are now, made in *folder* by the setuptools of this environment."""
    sources = folder / "sources"
    shutil.copytree(ROOT / "fairseq_adv", sources / "fairseq_adv", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sources]
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True)
    return next(folder.glob("*.whl"))


class Environment(NamedTuple):
    """A virtual environment, and an empty folder in which its commands run."""

    folder: Path
    work: Path

    def run(self, *words: object, expect: int = 0) -> str:
        """Run a command of the environment; what it printed. No variable leads it to the checkout."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment = {**kept, "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        environment.update(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore", CUDA_VISIBLE_DEVICES="")
        command: List[str] = [str(self.folder / "bin" / str(words[0])), *map(str, words[1:])]
        done = subprocess.run(
            command, cwd=self.work, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == expect, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout


def installed(wheel: Path, folder: Path) -> Environment:
    """A new environment with *wheel* in it and nothing else of its own.

    What the wheel needs is not downloaded again: a .pth file shows the site-packages of the running environment behind
    the new one's. An editable install there stays unseen, since Python reads no .pth files of a folder that one names.
    """
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment/bin/python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    (Path(own) / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ["--python", python, "install", "-q", "--no-index", "--ignore-installed", "--no-deps", wheel]
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True)
    (folder / "work").mkdir()
    return Environment(folder / "environment", folder / "work")
