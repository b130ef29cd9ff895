"""Parameters out of the files of a model of the Hugging Face kind, without its code: a folder, or a name on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import torch
from safetensors import safe_open
from torch import Tensor

_FILES = ("model.safetensors", "pytorch_model.bin")


def find_file(name: str, file: str) -> Optional[Path]:
    """Path of *file* of model *name*, fetched from the hub if need be, or None."""
    from transformers.utils import cached_file

    try:
        path = cached_file(name, file)
    except OSError:
        return None
    return None if path is None else Path(path)


def parameter_files(name: str, endings: Tuple[str, ...] = ("",)) -> Dict[str, Path]:
    """Parameter -> the file that holds it, for a model in one file or in several with an index.

    Of several files, only those are fetched that hold a parameter whose name ends with one of *endings*. Raises
    ``FileNotFoundError`` for a model without parameters.
    """
    for file in _FILES:
        path = find_file(name, file)
        if path is not None:
            return dict.fromkeys(_parameters(path), path)
        index = find_file(name, f"{file}.index.json")
        if index is not None:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            wanted = {p: shard for p, shard in shards.items() if p.endswith(endings)}
            return {p: find_file(name, shard) or Path(shard) for p, shard in wanted.items()}
    raise FileNotFoundError(f"it has neither {' nor '.join(_FILES)}")


def read_parameter(path: Path, name: str) -> Tensor:
    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="pt") as file:
            return file.get_tensor(name)
    return _load_bin(path)[name].clone()


def read_parameters(name: str) -> Dict[str, Tensor]:
    """All parameters of model *name*, on the CPU; each file is opened once."""
    found: Dict[str, Tensor] = {}
    for path in dict.fromkeys(parameter_files(name).values()):
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as file:
                found.update((key, file.get_tensor(key)) for key in list(file.keys()))
        else:
            found.update(_load_bin(path))
    return found


def _parameters(path: Path) -> List[str]:
    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="pt") as file:
            return list(file.keys())
    return list(_load_bin(path))


def _load_bin(path: Path) -> Dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)
