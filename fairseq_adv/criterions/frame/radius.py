"""``--adv-radius-schedule``: a radius that changes at given updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple


@dataclass(frozen=True)
class RadiusSchedule:
    """Steps ``(update, factor)`` in increasing order of update; before the first one the factor is 1."""

    steps: Tuple[Tuple[int, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> RadiusSchedule:
        """Read ``FACTOR@UPDATE,FACTOR@UPDATE,…``; an empty text means a constant radius."""
        steps: List[Tuple[int, float]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            try:
                factor, update = part.split("@")
                step = (int(update), float(factor))
            except ValueError:
                raise ValueError(
                    f"--adv-radius-schedule: cannot read {part!r} in {text!r}; write FACTOR@UPDATE, such as 1@0,2@2000"
                ) from None
            if not 0 <= step[1] < float("inf") or step[0] < 0 or (steps and step[0] <= steps[-1][0]):
                raise ValueError(
                    f"--adv-radius-schedule: {part!r} in {text!r} must have a finite factor >= 0 and a later update "
                    "than the step before it"
                )
            steps.append(step)
        return cls(tuple(steps))

    def at(self, update_num: int) -> float:
        """The factor in force at *update_num*."""
        factor = 1.0
        for update, value in self.steps:
            if update_num >= update:
                factor = value
        return factor

    def largest(self) -> float:
        """The largest factor that is ever in force."""
        return max([value for _, value in self.steps] + ([] if self.steps and self.steps[0][0] == 0 else [1.0]))
