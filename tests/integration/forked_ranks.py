"""``python -m tests.integration.forked_ranks JOBS``: real trainings on several ranks, without importing anew for each.

*JOBS* is a JSON file: a list of ``{"args": […], "ranks": N, "folder": PATH}``, trained one after the other by
``fairseq_cli.train`` in N processes each. Each folder gets the logs and the recorded sums of updates and validations.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

from tests.faults.killed_job import Job, import_fairseq
from tests.faults.rank_process import recorded
from tests.integration.running import run_command

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def train_on_ranks(jobs: List[Dict[str, Any]], directory: Path) -> None:
    """Run *jobs* in order; ``AssertionError`` with the logs' ends if a rank of one fails."""
    plan = directory / "jobs.json"
    plan.write_text(json.dumps(jobs, default=str))
    run_command([sys.executable, "-m", "tests.integration.forked_ranks", plan], env=ONE_THREAD)


def validation_loss(folder: Path) -> float:
    """Mean loss for a target token of the last validation in *folder*, in full precision."""
    rows = list(recorded(folder / "validation-0"))
    last = [row for row in rows if row["update"] == rows[-1]["update"]]
    return sum(row["loss"] for row in last) / sum(row["ntokens"] for row in last)


def main(plan: Path) -> int:
    import_fairseq()
    for number, job in enumerate(json.loads(plan.read_text()), start=1):
        folder = Path(job["folder"])
        folder.mkdir(exist_ok=True)
        running = Job([str(word) for word in job["args"]], job["ranks"], folder, number)
        if not running.wait(300) or any(running.codes.values()):
            running.kill([f"rank {rank}" for rank in range(job["ranks"])])
            logs = "".join(f"{log}:\n{log.read_text()[-3000:]}\n" for log in running.logs())
            print(f"exit statuses {running.codes}\n{logs}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
