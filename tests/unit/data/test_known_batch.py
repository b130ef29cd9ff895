"""Reading ahead: in the order of the announcements, a window at a time, and never a wrong or a lost result."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from fairseq_adv.data.known_batch import WINDOW, KnownBatch, ReadAhead


def batches(count):
    return [KnownBatch(np.array([i]), {}, {}) for i in range(count)]


class Reads:
    """A read that notes which batch it got on which thread, and may be held up."""

    def __init__(self):
        self.log, self.gate = [], threading.Event()
        self.gate.set()

    def __call__(self, batch):
        self.gate.wait(5)
        self.log.append((int(batch.ids[0]), threading.current_thread().name))
        if batch.ids[0] == 99:
            raise ValueError("record 99 is damaged")
        return int(batch.ids[0]) * 10


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_announced_batches_are_read_beside_the_asker_and_no_more_than_a_window():
    reads, known = Reads(), batches(10)
    ahead = ReadAhead(reads)
    for batch in known:
        ahead.announce(batch)
    wait_for(lambda: len(reads.log) == WINDOW)
    time.sleep(0.05)
    assert len(reads.log) == WINDOW
    assert [ahead.take(batch) for batch in known] == [10 * i for i in range(10)]
    assert [number for number, _ in reads.log] == list(range(10))
    assert all(name == "reading perturbations" for _, name in reads.log)


def test_what_was_not_announced_or_is_asked_for_again_is_read_at_once():
    reads, (first, second) = Reads(), batches(2)
    ahead = ReadAhead(reads)
    ahead.announce(first)
    assert [ahead.take(batch) for batch in (first, second, first)] == [0, 10, 0]
    here = threading.current_thread().name
    assert [name == here for _, name in reads.log] == [False, True, True]


def test_a_failure_is_raised_where_its_batch_is_asked_for():
    known = KnownBatch(np.array([99]), {}, {})
    ahead, reads = ReadAhead(Reads()), batches(1)
    for batch in (known, *reads):
        ahead.announce(batch)
    with pytest.raises(ValueError, match="record 99 is damaged"):
        ahead.take(known)
    assert ahead.take(reads[0]) == 0


def test_batches_that_nobody_holds_any_more_are_left_out():
    reads, known = Reads(), batches(8)
    ahead = ReadAhead(reads)
    reads.gate.clear()
    for batch in known:
        ahead.announce(batch)
    last = known[-1]
    del known, batch
    gc.collect()
    reads.gate.set()
    assert ahead.take(last) == 70
    assert [number for number, _ in reads.log][-1] == 7 and len(reads.log) <= 2


def test_stop_reads_nothing_more_and_batches_are_read_anew_afterwards():
    reads, known = Reads(), batches(8)
    ahead = ReadAhead(reads)
    reads.gate.clear()
    for batch in known:
        ahead.announce(batch)
    stopped = threading.Thread(target=ahead.stop)
    stopped.start()
    reads.gate.set()
    stopped.join(5)
    assert not stopped.is_alive() and len(reads.log) <= 1
    assert [ahead.take(batch) for batch in known] == [10 * i for i in range(8)]
