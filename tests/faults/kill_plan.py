"""When a training is killed, and what came of it."""

from __future__ import annotations

import random
from typing import NamedTuple, Tuple

from tests.faults.rank_process import Position

AIMS = ("resume", "seal", "commit", "checkpoint")


class Plan(NamedTuple):
    """When a kill comes: *delay* seconds after the *entry*-th time that *rank* enters *aim* (or its first update)."""

    aim: str
    entry: int
    rank: int
    delay: float
    everybody: bool

    @classmethod
    def draw(cls, rng: random.Random, ranks: int, duration: float) -> Plan:
        """*duration* is that of the uninterrupted training, in seconds."""
        aim = rng.choice(AIMS) if rng.random() < 0.5 else "time"
        delay = rng.uniform(0, duration / 2) if aim == "time" else 10 ** rng.uniform(-4, -1.3)
        entry = {"seal": rng.randint(1, 4), "checkpoint": rng.randint(2, 6)}.get(aim, 1)
        return cls(aim, entry, rng.randrange(ranks), delay, rng.random() < 0.5)


NEVER = Plan("never", 1, 0, 0.0, False)


class Kill(NamedTuple):
    """A signal that fell: what was aimed at, where each rank was, and how the survivors ended."""

    plan: Plan
    positions: Tuple[Position, ...]
    roles: Tuple[str, ...]
    survivors: str

    def __str__(self) -> str:
        where = "; ".join(
            f"rank {rank}: epoch {p.epoch}{' (refresh)' if p.refreshing else ''}, update {p.update}, {p.phase}"
            for rank, p in enumerate(self.positions)
        )
        return f"aimed at {self.plan.aim}, killed {', '.join(self.roles)} [{where}] {self.survivors}"
