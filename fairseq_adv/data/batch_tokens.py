"""Batches counted in target tokens, or in sentences: the schedule of batch sizes and the planner of updates.

A user states how many of them one update sees over all ranks; which micro-batches make up an
update follows from the data alone. The planner therefore cuts the epoch's micro-batches *before* it
deals them to ranks: the global batch of every update is the same on 1 rank or 64. Pure functions of
numbers: no fairseq, no torch, no state; the same input gives the same plan on every rank.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import re
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple, Union

#: Micro-batch indices of one update, one ascending list per rank; a list may be empty.
Update = List[List[int]]

_ENTRY = re.compile(r"(\d+(?:\.\d+)?)([km]?)@(\d+)", re.IGNORECASE)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True)
class BatchUnit:
    """What a batch is counted in, and the options by which a user says so."""

    name: str  # "target tokens"
    target: str  # the option of a constant batch
    schedule: str  # the option of a batch that changes
    micro_batch: str  # the option that limits a micro-batch
    column: str  # of the training log
    example: str


TOKENS = BatchUnit(
    "target tokens",
    "--target-batch-tokens",
    "--batch-tokens-schedule",
    "--max-tokens",
    "batch_tokens",
    "32k@0,128k@2000",
)
SENTENCES = BatchUnit(
    "sentences",
    "--target-batch-sentences",
    "--batch-sentences-schedule",
    "--batch-size",
    "batch_sentences",
    "32@0,1k@2000",
)


@dataclass(frozen=True)
class BatchTokensSchedule:
    """The batch per update, in *unit*, as a step function of the update number (0 is the first update)."""

    updates: Tuple[int, ...]  # ascending, the first is 0
    tokens: Tuple[int, ...]  # tokens[i] holds from updates[i] on
    unit: BatchUnit = TOKENS

    def at(self, update: int) -> int:
        """Target tokens of update ``update``."""
        if update < 0:
            raise ValueError(f"update must be >= 0, got {update}")
        return self.tokens[bisect.bisect_right(self.updates, update) - 1]


def parse_batch_tokens(text: str, unit: BatchUnit = TOKENS) -> BatchTokensSchedule:
    """``"32k@0,128k@2000"`` → schedule; k is 1,000 and m is 1,000,000.

    Raises ``ValueError`` naming the entry if one is malformed, holds no whole positive number of
    tokens, or if the updates do not start at 0 and ascend.
    """
    updates: List[int] = []
    tokens: List[int] = []
    for entry in text.split(","):
        amount, update = _parse_entry(entry.strip(), text, unit)
        if not updates and update != 0:
            raise ValueError(f"{unit.schedule} {text!r}: the first entry must hold from update 0, got {update}")
        if updates and update <= updates[-1]:
            raise ValueError(f"{unit.schedule} {text!r}: updates must ascend, got {update} after {updates[-1]}")
        updates.append(update)
        tokens.append(amount)
    return BatchTokensSchedule(tuple(updates), tuple(tokens), unit)


def _parse_entry(entry: str, text: str, unit: BatchUnit) -> Tuple[int, int]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(
            f"{unit.schedule} {text!r}: cannot read {entry!r}; write AMOUNT@UPDATE entries separated by commas, such "
            f"as {unit.example}"
        )
    amount = float(match[1]) * _UNITS[match[2].lower()]
    tokens = round(amount)
    if tokens < 1 or abs(tokens - amount) > 1e-6:
        raise ValueError(f"{unit.schedule} {text!r}: {entry!r} is not a positive whole number of {unit.name}")
    return tokens, int(match[3])


def batch_tokens_schedule(target: int, schedule: str = "", unit: BatchUnit = TOKENS) -> Optional[BatchTokensSchedule]:
    """What the two options of *unit* say together, ``--target-batch-tokens`` and so on; None if both are off.

    Both at once is a ``ValueError``, as is a target below 0 or a malformed schedule.
    """
    if target < 0:
        raise ValueError(f"{unit.target} must be >= 0 (0 means off), got {target}")
    if schedule and target:
        raise ValueError(f"{unit.target} {target} and {unit.schedule} {schedule!r} both set the batch: drop one")
    if schedule:
        return parse_batch_tokens(schedule, unit)
    return BatchTokensSchedule((0,), (target,), unit) if target else None


def parse_target(text: str, unit: BatchUnit = TOKENS) -> int:
    """``"32k"`` → 32,000, ``""`` → 0; raises ``ValueError`` naming the option."""
    if text.strip() in ("", "0"):
        return 0
    try:
        return parse_batch_tokens(f"{text.strip()}@0").tokens[0]
    except ValueError:
        raise ValueError(
            f"{unit.target} must be a whole number of {unit.name} such as 32000, 32k or 0.5m (0 means off), "
            f"got {text!r}"
        ) from None


def plan_updates(
    batch_tokens: Sequence[int],
    world_size: int,
    target: Union[int, BatchTokensSchedule],
    first_update: int = 0,
    skip_remainder: bool = False,
) -> List[Update]:
    """Group the micro-batches of one epoch into updates and deal each update to the ranks.

    ``batch_tokens[i]`` is the number of target tokens (or sentences) of micro-batch i, in the epoch's order;
    ``target`` the tokens per update over all ranks, constant or by update; ``first_update`` the
    number of updates finished before this epoch. Every micro-batch is in exactly one update, in
    order. Cuts lie at the micro-batch boundaries nearest to the running sum of targets, so that
    errors do not add up. Without ``skip_remainder`` the whole epoch is spread over the nearest whole
    number n of updates: the mean batch is off the target by at most 1/(2n), i.e. 3 % from 17
    updates on. With it the tokens that fill no update are left out and the mean is off by half a
    micro-batch over the epoch.

    An update with fewer micro-batches than ranks leaves ranks with an empty list: these take part
    in the gradient exchange with a dummy batch of no weight.

    Raises ``ValueError`` for an empty epoch, ``world_size`` < 1 or a target smaller than the
    largest micro-batch.
    """
    if world_size < 1:
        raise ValueError(f"world_size must be >= 1, got {world_size}")
    if not batch_tokens or min(batch_tokens) < 1:
        raise ValueError("an epoch needs at least one micro-batch, and each at least one target token")
    schedule = target if isinstance(target, BatchTokensSchedule) else BatchTokensSchedule((0,), (target,))
    ends = list(itertools.accumulate(batch_tokens))  # ends[i]: tokens up to and with micro-batch i
    goals = _goals(ends[-1], schedule, first_update, skip_remainder, max(batch_tokens))
    cuts = _nearest_cuts(ends, goals, spread=not skip_remainder)
    starts = [0, *cuts[:-1]]
    return [_deal(range(a, b), batch_tokens, world_size) for a, b in zip(starts, cuts)]


def _goals(total: int, schedule: BatchTokensSchedule, first: int, skip_remainder: bool, largest: int) -> List[float]:
    """Running sums of tokens at which the updates of an epoch of ``total`` tokens should end."""
    goals: List[float] = []
    reached, unit = 0, schedule.unit
    while reached < total:
        target = schedule.at(first + len(goals))
        if target < largest:
            raise ValueError(
                f"the target of {target} {unit.name.split()[-1]} per update ({unit.target} or {unit.schedule}) is "
                f"below one micro-batch of {largest} {unit.name}: lower {unit.micro_batch} to at most {target} or "
                f"raise the target to at least {largest}"
            )
        overshoot = reached + target - total
        if goals and overshoot > (0 if skip_remainder else target / 2):
            break
        reached += target
        goals.append(reached)
    if skip_remainder:
        return goals
    return [goal * total / reached for goal in goals]


def _nearest_cuts(ends: List[int], goals: List[float], spread: bool) -> List[int]:
    """For each goal the number of micro-batches before it: nearest, and at least one more each time."""
    cuts: List[int] = []
    for index, goal in enumerate(goals):
        after = bisect.bisect_left(ends, goal)  # ends[after] is the first to reach the goal
        before = ends[after - 1] if after > 0 else 0
        reach = after < len(ends) and ends[after] - goal <= goal - before
        cut = after + 1 if reach else after
        lowest = cuts[-1] + 1 if cuts else 1
        highest = len(ends) - (len(goals) - 1 - index)
        cuts.append(min(max(cut, lowest), highest))
    if spread:
        cuts[-1] = len(ends)
    return cuts


def _deal(indices: Sequence[int], batch_tokens: Sequence[int], world_size: int) -> Update:
    """Largest first to the rank with the fewest micro-batches, then the fewest tokens, then the lowest.

    Counts differ by at most one, since a micro-batch costs about the same whatever its padding.
    """
    ranks: Update = [[] for _ in range(world_size)]
    queue = [(0, 0, rank) for rank in range(world_size)]  # micro-batches, tokens, rank; a heap
    for index in sorted(indices, key=lambda i: (-batch_tokens[i], i)):
        count, load, rank = queue[0]
        ranks[rank].append(index)
        heapq.heapreplace(queue, (count + 1, load + batch_tokens[index], rank))
    return [sorted(rank) for rank in ranks]
