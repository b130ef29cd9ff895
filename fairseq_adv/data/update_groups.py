"""Which updates of an epoch share a group of micro-batches: replays, and token targets counted in groups.

A group is what one optimizer step sees. Usually each group makes one update; with replays (FreeAT) it makes
several in a row. Pure functions of numbers, the same on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from fairseq_adv.data.batch_tokens import BatchTokensSchedule


@dataclass(frozen=True)
class Replays:
    """Each group that begins at update ``start`` or later makes ``count`` updates; the others make one."""

    count: int = 1
    start: int = 0

    def at(self, update: int) -> int:
        """How many updates a group makes that begins at *update*."""
        return self.count if update >= self.start else 1

    def of_groups(self, number: int, first_update: int) -> List[int]:
        """How many updates each of *number* groups makes, the first beginning at *first_update*."""
        counts: List[int] = []
        for _ in range(number):
            counts.append(self.at(first_update))
            first_update += counts[-1]
        return counts

    def groups_before(self, update: int, first_update: int) -> int:
        """How many groups begin before *update* if the first one begins at *first_update*."""
        start = max(self.start, first_update)
        once = max(0, min(update, start) - first_update)
        replayed = max(0, update - start)
        return once + -(-replayed // self.count)

    def in_groups(self, schedule: BatchTokensSchedule, first_update: int) -> BatchTokensSchedule:
        """*schedule* by group instead of update: a target holds from the first group that begins at its update."""
        steps: Dict[int, int] = {}
        for update, tokens in zip(schedule.updates, schedule.tokens):
            steps[self.groups_before(update, first_update)] = tokens
        return BatchTokensSchedule(tuple(steps), tuple(steps.values()), schedule.unit)


def locate_update(counts: Sequence[int], update: int) -> Tuple[int, int]:
    """Group and replay of the epoch's *update* (0 is its first); ``(len(counts), 0)`` behind the last one.

    ``counts[g]`` is the number of updates that group g makes.
    """
    for group, count in enumerate(counts):
        if update < count:
            return group, update
        update -= count
    return len(counts), 0
