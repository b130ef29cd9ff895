"""Every test here sees fairseq as the plugin repairs it."""

from __future__ import annotations

import pytest

import fairseq_adv


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    fairseq_adv.register()
