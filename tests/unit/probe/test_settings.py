"""Impossible settings are refused by the option's name."""

from __future__ import annotations

import pytest

from fairseq_adv.probe.settings import ProbeSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"radii": (0.1, 0.0)}, "--radii must be > 0"),
        ({"rates": (0.1, 1.5)}, r"--rates must be in \[0, 1\]"),
        ({"sam_radii": (-1.0,)}, "--sam-radii must be > 0"),
        ({"points": 4}, "--points must be an odd number"),
        ({"plane": 4}, "--plane must be 0 or odd"),
    ],
)
def test_what_cannot_be(values: dict, message: str) -> None:
    ProbeSettings()
    with pytest.raises(ValueError, match=message):
        ProbeSettings(**values)
