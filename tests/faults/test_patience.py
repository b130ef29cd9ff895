"""A limit on waiting counts the time in which the waiting process ran."""

from __future__ import annotations

import pytest

from tests.faults.patience import Patience


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tests.faults.patience.time.monotonic", lambda: now[0])
    return now


def looks(patience, clock, pauses):
    answers = []
    for pause in pauses:
        clock[0] += pause
        answers.append(patience.is_over)
    return answers


def test_it_is_over_when_the_seconds_have_passed_look_by_look(clock):
    assert looks(Patience(2.0), clock, [0.5, 0.5, 0.5, 0.5, 0.25]) == [False, False, False, False, True]


def test_a_standstill_of_minutes_is_no_hang(clock):
    assert looks(Patience(2.0), clock, [0.5, 180.0, 0.25, 0.5]) == [False, False, False, True]


def test_whatever_happens_renews_it(clock):
    patience = Patience(1.0)
    assert looks(patience, clock, [0.75]) == [False]
    patience.renew()
    assert looks(patience, clock, [0.75, 0.5]) == [False, True]
