"""Average the parameters of fairseq checkpoints into one, as papers do before they score.

Sums are taken in fp64 and stored in the type of the first checkpoint; integer entries (such as counters) are
taken from the last. Everything but the parameters comes from the last input too, so the result can be given to
``fairseq-generate``; the optimizer state is left out, so it cannot be trained further as if nothing had happened.
Checkpoints are read with torch's safe loader: no code in them is run.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from tqdm import tqdm

from fairseq_adv.whole_files import whole_file

EPOCH_FILE = re.compile(r"checkpoint(\d+)\.pt")
UPDATE_FILE = re.compile(r"checkpoint_\d+_(\d+)\.pt")


def allow_fairseq_types() -> None:
    """Let torch's safe loader accept the few plain types that fairseq puts into checkpoints."""
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        import fairseq  # noqa: F401  (the plugin expects it first)

        from fairseq_adv import compat
    except ImportError:
        return
    compat.apply()


def load_checkpoint(path: Path) -> Dict[str, Any]:
    """A fairseq checkpoint on the CPU. Raises ``ValueError`` if *path* is not one."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises a different type for each kind of damage
        raise ValueError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError(f"{path} is no fairseq checkpoint: it has no entry 'model'")
    return state


def average_parameters(paths: Sequence[Path]) -> Dict[str, Any]:
    """The last checkpoint of *paths* with the mean of all their parameters and without optimizer state.

    Raises ``ValueError`` naming the first file whose parameters differ in name or shape from the first's.
    """
    sums: Dict[str, torch.Tensor] = {}
    dtypes: Dict[str, torch.dtype] = {}
    state: Dict[str, Any] = {}
    for path in tqdm(paths, unit="checkpoint", disable=None):
        state = load_checkpoint(path)
        model = state["model"]
        if sums and {name: value.shape for name, value in model.items()} != {n: v.shape for n, v in sums.items()}:
            raise ValueError(f"{path} has other parameters than {paths[0]}: average checkpoints of one model only")
        for name, value in model.items():
            if not value.is_floating_point():
                sums[name] = value
            elif name in sums:
                sums[name] += value.double()
            else:
                sums[name], dtypes[name] = value.double(), value.dtype
    model = {name: (total / len(paths)).to(dtypes[name]) if name in dtypes else total for name, total in sums.items()}
    state["model"] = model
    state.pop("last_optimizer_state", None)
    return state


def last_checkpoints(folder: Path, pattern: re.Pattern, count: int) -> List[Path]:
    """The *count* newest files in *folder* whose name matches *pattern*, by the number in it, oldest first."""
    numbered = sorted(
        (int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name)) is not None
    )
    if len(numbered) < count:
        found = ", ".join(path.name for _, path in numbered) or "none"
        raise ValueError(f"{count} checkpoints were asked for, but {folder} has {len(numbered)}: {found}")
    return [path for _, path in numbered[-count:]]


def write_average(paths: Sequence[Path], output: Path) -> None:
    """Write the mean of the checkpoints *paths* to *output*, whole or not at all."""
    allow_fairseq_types()
    state = average_parameters(paths)
    with whole_file(output) as partial:
        torch.save(state, partial)
