"""The commands that code blocks of the documentation show, as a shell expands them: loops, variables, quotes, globs.

Each block runs in a real bash in an empty folder where the programs that the documentation names only write their
words down. A block that names a folder of its page (``bash 400k.sh``) is told apart by :attr:`Shown.page`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = ("python", "bash", "fairseq-adv", "fairseq-train", "fairseq-preprocess", "fairseq-generate",
            "fairseq-hydra-train", "sbatch", "pip")  # fmt: skip
RECORDER = """#!{python}
import json, os, sys
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
print("SHOWN")
"""


class Shown(NamedTuple):
    """One command: the page that shows it and its words."""

    page: Path
    words: List[str]

    @property
    def text(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {' '.join(self.words)}"


def blocks(page: Path) -> List[str]:
    """The code blocks of *page*; an option line without a command (``--cache-dir …``) is none."""
    found = (match[1] for match in BLOCK.finditer(page.read_text(encoding="utf-8")))
    return [block for block in found if not block.startswith("--")]


def recorders(folder: Path) -> Path:
    """A folder of programs that write down how they were called."""
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        program = folder / name
        program.write_text(RECORDER.format(python=sys.executable))
        program.chmod(0o755)
    return folder


def shown_by(page: Path, programs: Path, folder: Path) -> List[Shown]:
    """Every command that the code blocks of *page* run."""
    record = folder / "record"
    record.touch()
    environment: Dict[str, str] = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "RECORD": str(record)}
    for block in blocks(page):
        command: Sequence[str] = ["/bin/bash", "-euc", block]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page.name} shows a block that no shell runs:\n{block}\n{done.stderr}"
    return [Shown(page, json.loads(line)) for line in record.read_text().splitlines()]
