"""Replays and schedules in groups against a loop that walks update by update."""

from __future__ import annotations

import random

import pytest

from fairseq_adv.data.batch_tokens import BatchTokensSchedule, parse_batch_tokens
from fairseq_adv.data.update_groups import Replays, locate_update


def first_updates_of_groups(count, start, first, number):
    """The update at which each group begins, one after the other."""
    updates, update = [], first
    for _ in range(number):
        updates.append(update)
        update += count if update >= start else 1
    return updates


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("start", [0, 4, 11])
@pytest.mark.parametrize("first", [0, 3, 20])
def test_groups_and_updates(count, start, first):
    replays = Replays(count, start)
    begins = first_updates_of_groups(count, start, first, 30)
    counts = replays.of_groups(29, first)
    assert counts == [after - before for before, after in zip(begins, begins[1:])]
    for update in range(begins[-1]):
        assert replays.groups_before(update, first) == sum(begin < update for begin in begins)
    for update in range(first, begins[-1]):
        group, replay = locate_update(counts, update - first)
        assert begins[group] + replay == update and replay < counts[group]
    assert locate_update(counts, sum(counts)) == (29, 0)


def test_a_target_holds_from_the_first_group_that_begins_at_its_update():
    rng = random.Random(1)
    for _ in range(200):
        steps = sorted(rng.sample(range(1, 40), rng.randint(0, 6)))
        schedule = BatchTokensSchedule((0, *steps), tuple(range(100, 101 + len(steps))))
        replays, first = Replays(rng.randint(1, 5), rng.randint(0, 15)), rng.randint(0, 30)
        begins = first_updates_of_groups(replays.count, replays.start, first, 40)
        in_groups = replays.in_groups(schedule, first)
        assert list(in_groups.updates) == sorted(set(in_groups.updates)) and in_groups.updates[0] == 0
        assert [in_groups.at(group) for group in range(40)] == [schedule.at(begin) for begin in begins]


def test_three_replays_of_each_batch():
    schedule = Replays(3).in_groups(parse_batch_tokens("100@0,200@3,400@7"), 0)
    assert [schedule.at(group) for group in range(5)] == [100, 200, 200, 400, 400]
