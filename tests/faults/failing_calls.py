"""File calls that fail when a test says so."""

from __future__ import annotations

import os
from typing import Any, Callable, List

import pytest

from fairseq_adv.cache.files import Files


def fail_call(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    number: int,
    error: int,
    times: int = 1,
    only: Callable[..., Any] = lambda *args: True,
) -> List[Any]:
    """Let calls *number* … of ``Files.<method>`` (counted from 0, those that *only* accepts) raise *error*."""
    original, calls = getattr(Files, method), []

    def faulty(self, *args):
        if only(*args):
            calls.append(args)
            if number <= len(calls) - 1 < number + times:
                raise OSError(error, os.strerror(error))
        return original(self, *args)

    monkeypatch.setattr(Files, method, faulty)
    return calls
