"""What the tests of repairs compare with: fairseq as it came."""

from __future__ import annotations

import inspect
from typing import Any, Callable

from fairseq_adv.compat.patch import resolve


def unpatched(symbol: str) -> Callable[..., Any]:
    """fairseq's own callable behind the patched *symbol*."""
    return inspect.unwrap(resolve(symbol))
