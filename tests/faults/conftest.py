"""What tests of faults share."""

from __future__ import annotations

import pytest

from tests.unit.cache import caches


@pytest.fixture(params=[("src", "tgt"), ("src",)], ids=["two-sided", "one-sided"])
def either_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault meets the cache of sentence pairs, and the one-sided cache of a sentence task."""
    monkeypatch.setattr(caches, "SIDES", list(request.param))
