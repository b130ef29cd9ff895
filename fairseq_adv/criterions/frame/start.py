"""When a method begins: at an update, or when plain training's validation has stopped getting better.

Plain training first is cheaper by construction: its updates cost a half to a quarter of a method's, and what a
regulariser has to hold back only comes with overfitting.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Dict, Optional

from fairseq_adv.criterions.frame.config import require

logger = logging.getLogger(__name__)

PATIENCE = 5  # of "auto" without a number


class StartRule:
    """``--adv-start-update N`` or ``auto:PATIENCE``, the validations without a better value that end plain training.

    A validation counts if it stands at the end of an epoch, by the value of ``--best-checkpoint-metric``, which all
    ranks know. ``update`` is the first update of the method, ``None`` as long as that is open.
    """

    def __init__(self, start: str) -> None:
        match = re.fullmatch(r"(auto)(?::([1-9]\d*))?|\d+", start.strip())
        require(match is not None, "--adv-start-update", ">= 0, auto or auto:N", start)
        assert match is not None
        self.is_auto = match[1] is not None
        self.patience = int(match[2] or PATIENCE)
        self.update: Optional[int] = None if self.is_auto else int(start)
        self.best: Optional[float] = None
        self.without_gain = 0  # validations since the best one

    def has_begun(self, update_num: int) -> bool:
        return self.update is not None and update_num >= self.update

    def is_due(self, update_num: int, every: int) -> bool:
        """Whether *update_num* is one of each *every*-th from the start on."""
        return (update_num - (self.update or 0)) % every == 0

    def validated(self, value: Optional[float], maximize: bool, update_num: int) -> None:
        """An epoch ended after *update_num* updates in all, with *value* (``None``: without a validation)."""
        if value is None or self.update is not None:
            return
        if self.best is None or (value > self.best if maximize else value < self.best):
            self.best, self.without_gain = value, 0
            return
        self.without_gain += 1
        if self.without_gain >= self.patience:
            self.update = update_num
            logger.info(
                "no validation better than %g for %d of them: plain training ends, the method begins after update %d",
                self.best,
                self.without_gain,
                update_num,
            )

    def state_dict(self) -> Dict[str, Any]:
        """For a checkpoint; empty where there is nothing to find out."""
        if not self.is_auto:
            return {}
        return {"update": self.update, "best": self.best, "without_gain": self.without_gain}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        if self.is_auto and state:
            self.update, self.best, self.without_gain = state["update"], state["best"], state["without_gain"]
