"""The thread beside the training: order, results, failures, and a bound on what waits."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from fairseq_adv.cache.background import Background


def test_actions_are_done_in_turn_on_one_other_thread():
    background, seen = Background("beside"), []

    def work(number: int) -> int:
        seen.append((number, threading.current_thread().name))
        return number

    futures = [background.submit(partial(work, i)) for i in range(20)]
    assert [future.result() for future in futures] == list(range(20))
    assert seen == [(i, "beside") for i in range(20)]
    background.close()
    assert background.submit(lambda: 7).result() == 7  # it starts again


def test_a_failure_is_its_own_and_later_actions_are_done():
    background = Background("beside")
    bad, good = background.submit(lambda: 1 // 0), background.submit(lambda: "done")
    with pytest.raises(ZeroDivisionError):
        bad.result()
    assert good.result() == "done"


def test_drain_waits_and_cancelled_actions_are_left_out():
    background, gate, done = Background("beside"), threading.Event(), []
    background.submit(gate.wait)
    late = background.submit(lambda: done.append("late"))
    background.submit(lambda: done.append("last"))
    assert late.cancel()
    gate.set()
    background.drain()
    assert done == ["last"]


def test_a_giver_waits_when_as_many_wait_as_may():
    background, gate, given = Background("beside", pending=2), threading.Event(), []

    def give():
        for i in range(5):
            background.submit(gate.wait)
            given.append(i)

    giver = threading.Thread(target=give)
    giver.start()
    deadline = time.monotonic() + 5
    while len(given) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(given) == 3  # one is being done, two wait
    gate.set()
    giver.join(5)
    assert len(given) == 5
