"""Which validation made a run's best checkpoint, as its own configuration says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence

from fairseq_adv.report.logs import Record, TrainingLog


@dataclass(frozen=True)
class Selection:
    """``--best-checkpoint-metric`` on the first ``--valid-subset``; *known* where the log tells them."""

    metric: str
    maximize: bool
    subset: str
    known: bool

    @classmethod
    def of(cls, log: TrainingLog) -> Selection:
        """From the configuration that fairseq printed; its defaults where there is none."""
        options = log.options.get("checkpoint", {})
        metric = options.get("best_checkpoint_metric")
        maximize = bool(options.get("maximize_best_checkpoint_metric"))
        return cls(str(metric or "loss"), maximize, log.valid_subset, metric is not None)

    def best(self, validations: Sequence[Record]) -> Optional[Record]:
        """The validation behind ``checkpoint_best.pt``: of equal ones fairseq keeps the latest."""
        sign = 1.0 if self.maximize else -1.0
        found = [record for record in validations if math.isfinite(record.get(self.metric, math.nan))]
        return max(reversed(found), key=lambda record: sign * record[self.metric]) if found else None

    def text(self) -> str:
        """``highest bleu of valid``, and whether that is only assumed."""
        rule = f"{'highest' if self.maximize else 'lowest'} {self.metric} of {self.subset}"
        return rule if self.known else f"{rule}: assumed, the log does not tell --best-checkpoint-metric"
