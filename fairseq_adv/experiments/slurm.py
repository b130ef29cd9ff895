"""Runs as jobs of a SLURM cluster, through submitit: for grids that outgrow one machine.

Each run is a job of its own, which does on its node what :class:`~fairseq_adv.experiments.jobs.Processes` does here. A
job that is preempted or comes near its time limit queues itself again and goes on from its run's last epoch. The run's
folder names its job: whoever starts the grid again, after whatever ended the first, waits for that job.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from fairseq_adv.experiments.jobs import Processes, Run
from fairseq_adv.whole_files import write_text

RECORD = "slurm-job.json"  # in a run's folder, while its job is not known to have ended
POLL = 0.5  # seconds; submitit asks SLURM itself less often
KNOWN_AFTER = 300.0  # seconds: a job of which SLURM then knows nothing is none


def parse_parameters(words: Sequence[str]) -> Dict[str, Any]:
    """Parameters of submitit's executor from ``KEY=VALUE``. Raises ``ValueError`` for another form."""
    found: Dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key or not value:
            raise ValueError(f"--slurm takes KEY=VALUE such as timeout_min=600 slurm_partition=gpu, got {word!r}")
        found[key] = int(value) if value.isdigit() else value
    return found


class RunOnNode:
    """What a job does with its run; submitit sends it to the node, and back into the queue."""

    def __call__(self, run: Run) -> Optional[str]:
        """The reason why *run* failed, else None. Whatever ends this job ends the commands of the run, too.

        Handlers of signals run in the main thread alone: what they raise can meet no command half started in another.
        """
        processes = Processes()
        with ThreadPoolExecutor(1) as thread:
            result = thread.submit(processes.complete, run)
            try:
                return result.result()
            except BaseException:
                processes.stop()
                raise

    def checkpoint(self, run: Run) -> Any:
        """What is queued again when the job has to go: the same, since a run goes on by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, run)


class Jobs:
    """The jobs under way; submitit's files of them lie in *folder*, which all nodes have to see.

    Raises ``ValueError`` for *parameters* that submitit does not know, and ``ImportError`` without submitit. The
    parameter ``cluster=local`` starts processes on this machine instead.
    """

    def __init__(self, folder: Path, parameters: Dict[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ImportError("--slurm needs submitit: pip install 'fairseq-adv[slurm]'") from error
        options = dict(parameters)
        cluster = options.pop("cluster", "slurm")
        self._job_class: Any = submitit.LocalJob if cluster == "local" else submitit.SlurmJob
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            self._executor.update_parameters(**{"name": "fairseq-adv", **options})
        except (ValueError, RuntimeError, NameError, AssertionError, TypeError) as error:
            raise ValueError(f"--slurm: {error}") from error
        self._submitit = threading.Lock()  # submitit is not made for threads
        self.stopped = False

    def complete(self, run: Run) -> Optional[str]:
        """Have *run* completed by a job and wait for it; the reason if that failed, else None."""
        run.folder.mkdir(parents=True, exist_ok=True)
        with self._submitit:
            if self.stopped:
                return f"{run.folder.name}: interrupted"
            job = self._under_way(run.folder) or self._submitted(run)
        while not self._done(job):
            if self.stopped:
                job.cancel(check=False)
                return f"{run.folder.name}: interrupted"
            time.sleep(POLL)
        with self._submitit:
            error = job.exception()
            (run.folder / RECORD).unlink(missing_ok=True)
        return f"failed: {run.folder.name}: job {job.job_id}: {error}" if error else job.result()

    def stop(self, *_: object) -> None:
        """Have each job cancelled by whoever waits for it, and submit no more; a handler of signals."""
        self.stopped = True

    def _done(self, job: Any) -> bool:
        with self._submitit:
            return job.done()

    def _submitted(self, run: Run) -> Any:
        job = self._executor.submit(RunOnNode(), run)
        write_text(run.folder / RECORD, json.dumps({"id": job.job_id, "folder": str(job.paths.folder)}) + "\n")
        return job

    def _under_way(self, folder: Path) -> Optional[Any]:
        """The job that an earlier command left to complete the run in *folder*, unless it has ended."""
        record = folder / RECORD
        if not record.is_file():
            return None
        told = json.loads(record.read_text(encoding="utf-8"))
        job = self._job_class(told["folder"], told["id"])
        old = time.time() - record.stat().st_mtime > KNOWN_AFTER
        ended = job.done(force_check=True) or (old and job.state == "UNKNOWN")
        return None if ended else job
