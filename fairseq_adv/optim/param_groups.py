"""Parameter groups and option values that the optimizers have in common."""

from __future__ import annotations

import ast
from typing import Any, Dict, Iterable, List, Tuple

from torch import Tensor


def split_by_shape(params: Iterable[Tensor]) -> List[Dict[str, Any]]:
    """Two parameter groups: matrices first, then what is *excluded* from decay and trust ratio.

    Excluded are tensors with at most one dimension: biases and the gains and biases of LayerNorm,
    as in the reference runs of LARS and LAMB. An empty group is left out; order within a group is
    the order of ``params``, which a checkpoint relies on.
    """
    params = list(params)
    matrices = [p for p in params if p.ndim > 1]
    vectors = [p for p in params if p.ndim <= 1]
    groups = [{"params": matrices, "excluded": False}, {"params": vectors, "excluded": True}]
    return [group for group in groups if group["params"]]


def parse_betas(value: Any, option: str) -> Tuple[float, float]:
    """``"(0.9, 0.98)"``, ``"0.9,0.98"`` or a pair → two floats in [0, 1); otherwise ``ValueError``."""
    try:
        pair = ast.literal_eval(value) if isinstance(value, str) else value
        first, second = (float(beta) for beta in pair)
    except (ValueError, SyntaxError, TypeError):
        raise ValueError(f"{option} must be two numbers such as '(0.9, 0.98)', got {value!r}") from None
    if not (0.0 <= first < 1.0 and 0.0 <= second < 1.0):
        raise ValueError(f"{option} must lie in [0, 1), got {value!r}")
    return first, second


def check_at_least_zero(**options: float) -> None:
    """Raise ``ValueError`` naming the first option (keyword, ``lamb_eps`` for ``--lamb-eps``) below 0."""
    for name, value in options.items():
        if not value >= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be >= 0, got {value}")


def first_lr(lr: Any) -> float:
    """The learning rate to start with: fairseq's ``--lr`` is a list by epoch or one number."""
    return float(lr) if isinstance(lr, (int, float)) else float(lr[0])
