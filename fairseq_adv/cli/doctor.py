"""``fairseq-adv doctor``: what is installed, what is missing and the line that mends it, and the repairs of fairseq."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

HELP = "show versions, GPUs and repairs of fairseq, and what is missing; exit status 1 if something needed is"
EXAMPLE = "fairseq-adv doctor --json"


@dataclass(frozen=True)
class Package:
    """A module that the project uses. ``extra`` is the extra of setup.py that installs it, '' for the base install."""

    module: str
    distributions: Sequence[str]
    purpose: str
    extra: str = ""
    needed: bool = True


PACKAGES = (
    Package("torch", ("torch",), "training"),
    Package("fairseq", ("ve-fairseq", "fairseq-fixed", "fairseq"), "training", "fairseq"),
    Package("numpy", ("numpy",), "arrays"),
    Package("safetensors", ("safetensors",), "cache and neighbor files"),
    Package("tqdm", ("tqdm",), "progress bars"),
    Package("sacrebleu", ("sacrebleu",), "scores"),
    Package("sentencepiece", ("sentencepiece",), "sub-words"),
    Package("faiss", ("faiss-cpu", "faiss-gpu"), "nearest neighbors, else by torch", "knn", needed=False),
    Package("transformers", ("transformers",), "neighbors from BERT embeddings", "bert", needed=False),
    Package("matplotlib", ("matplotlib",), "figures of reports", "report", needed=False),
    Package("jinja2", ("Jinja2",), "pages of reports", "report", needed=False),
    Package("sacremoses", ("sacremoses",), "Moses tokens of recipes and tokenised BLEU", "report", needed=False),
    Package("sklearn", ("scikit-learn",), "scores and baselines of sentences", "sentences", needed=False),
    Package("scipy", ("scipy",), "correlations and tests over seeds", "sentences", needed=False),
    Package("subword_nmt", ("subword-nmt",), "recipes' --bpe subword-nmt", "bpe", needed=False),
    Package("submitit", ("submitit",), "grids on SLURM", "slurm", needed=False),
    Package("tensorboardX", ("tensorboardX",), "--tensorboard-logdir", "dev", needed=False),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    packages = [inspect_package(package) for package in PACKAGES]
    patches, trouble = inspect_patches(any(p["module"] == "fairseq" and p["version"] for p in packages))
    facts: Dict[str, Any] = {
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "packages": packages,
        "gpu": inspect_gpu(),
        "patches": patches,
        "patches_error": trouble,
        "directory": inspect_directory(Path.cwd()),
    }
    missing = any(package["needed"] and package["version"] is None for package in packages)
    facts["ok"] = not missing and trouble is None and facts["directory"]["writable"]
    print(json.dumps(facts, indent=2) if args.json else as_text(facts))
    return 0 if facts["ok"] else 1


def inspect_package(package: Package) -> Dict[str, Any]:
    """Which distribution provides the module, its version (``None`` if missing) and the pip line that installs it."""
    name, version = None, None
    if importlib.util.find_spec(package.module) is not None:
        name, version = _installed(package.distributions) or ("source tree", "unknown version")
    found = {**asdict(package), "distribution": name, "version": version}
    return {**found, "mend": None if version else install_line(package.extra)}


def _installed(distributions: Sequence[str]) -> Optional[Tuple[str, str]]:
    for name in distributions:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def install_line(extra: str) -> str:
    """The pip command that installs this package again with *extra*, from its checkout if it runs from one."""
    root = Path(__file__).resolve().parents[2]
    extras = f"[{extra}]" if extra else ""
    if (root / "setup.py").is_file():
        return f'pip install -e "{root}{extras}"'
    return f'pip install "fairseq-adv{extras}"'


def inspect_gpu() -> Dict[str, Any]:
    """torch's CUDA version and the GPUs that it sees; a note if the machine has GPUs that torch cannot use."""
    facts: Dict[str, Any] = {"cuda": None, "names": [], "note": None}
    if importlib.util.find_spec("torch") is not None:
        import torch

        facts["cuda"] = torch.version.cuda
        facts["names"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not facts["names"] and shutil.which("nvidia-smi"):
        facts["note"] = "nvidia-smi is here but torch sees no GPU: install a torch built for this driver's CUDA"
    return facts


def inspect_patches(has_fairseq: bool) -> Tuple[List[Dict[str, Any]], Optional[str]]:
    """Every repair of fairseq and whether it is in place, and the error that kept the plugin from loading, if any."""
    if importlib.util.find_spec("torch") is None:
        return [], None
    from fairseq_adv import compat, register

    trouble = None
    if has_fairseq:
        try:
            register()
        except Exception as error:  # whatever is wrong with this installation is what the user wants to read
            trouble = f"{type(error).__name__}: {error}"
    rows = [{"name": p.name, "symbol": p.symbol, "applied": p.applied, "reason": p.summary} for p in compat.PATCHES]
    return rows, trouble


def inspect_directory(path: Path) -> Dict[str, Any]:
    """Whether runs can write to *path*, and the space left there in bytes."""
    return {"path": str(path), "writable": os.access(path, os.W_OK), "free_bytes": shutil.disk_usage(path).free}


def as_text(facts: Dict[str, Any]) -> str:
    python, gpu, directory = facts["python"], facts["gpu"], facts["directory"]
    lines = [f"{'python':14}{python['version']}  ({python['platform']})"]
    lines += [_package_line(package) for package in facts["packages"]]
    seen = ", ".join(gpu["names"]) or "none"
    lines.append(f"{'GPU':14}{seen}" + (f"  (CUDA {gpu['cuda']})" if gpu["cuda"] else ""))
    if gpu["note"]:
        lines.append(f"{'':14}{gpu['note']}")
    state = "writable" if directory["writable"] else "NOT WRITABLE: run from a folder of yours"
    lines.append(f"{'directory':14}{directory['path']}  ({state}, {directory['free_bytes'] / 1e9:.1f} GB free)")
    lines += ["", "repairs of fairseq"]
    lines += [f"  {'applied' if p['applied'] else 'not yet':9}{p['symbol']}: {p['reason']}" for p in facts["patches"]]
    if facts["patches_error"]:
        lines.append(f"  the plugin does not load: {facts['patches_error']}")
    return "\n".join(lines)


def _package_line(package: Dict[str, Any]) -> str:
    if package["version"]:
        other_name = package["distribution"] != package["module"]
        return f"{package['module']:14}{package['version']}" + (f"  ({package['distribution']})" if other_name else "")
    kind = "MISSING" if package["needed"] else "not installed, optional"
    return f"{package['module']:14}{kind} ({package['purpose']}): {package['mend']}"
