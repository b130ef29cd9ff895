"""The list of repairs: each names what it repairs and why, and none is made twice."""

from __future__ import annotations

from fairseq_adv import compat
from fairseq_adv.compat.patch import _MARK, resolve


def test_every_patch_names_its_symbol_and_its_reason() -> None:
    assert len({patch.name for patch in compat.PATCHES}) == len(compat.PATCHES)
    for patch in compat.PATCHES:
        assert patch.applied
        assert callable(resolve(patch.symbol))
        assert len(patch.reason) > 100, f"{patch.name} does not say why"
        assert "\n" not in patch.summary


def test_applying_again_changes_nothing() -> None:
    before = {patch.symbol: resolve(patch.symbol) for patch in compat.PATCHES}
    compat.apply()
    for patch in compat.PATCHES:
        patch.applied = False  # as after a second import of the plugin under another name
    compat.apply()
    assert {symbol: resolve(symbol) for symbol in before} == before
    for symbol in before:
        assert not hasattr(getattr(resolve(symbol), "__wrapped__", None), _MARK), f"{symbol} is wrapped twice"
