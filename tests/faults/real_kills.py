"""Kill a real training at random moments, restart it until it ends, and compare it with an uninterrupted one.

``python -m tests.faults.real_kills --kills 100 --seed 1`` trains a tiny ARCH model over and over, two ranks, six
epochs, refreshes in epochs 1, 3 and 5. Half of the signals come at a uniform time, half are aimed at a resume, a seal,
a commit or a checkpoint; half hit one rank, half all. Exit status 1 if anything deviates: a parameter, a recorded sum,
a logged loss, a cached record, an error that the kill does not explain, a hang. ``scripts/soak.sh`` is this command.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Iterable, List

from tests.faults.kill_plan import NEVER, Kill, Plan
from tests.faults.killed_job import Job, adopt_orphans, import_fairseq
from tests.faults.outcome import check_logs, compare_end, compare_losses
from tests.faults.patience import Patience
from tests.integration.corpus import binarise
from tests.integration.running import default_args
from tests.integration.sentences import binarise_sentences, sentence_args

PATIENCE, LIMIT = 5.0, 60.0  # seconds for survivors of a kill to notice, and to end after SIGTERM


class Soak:
    """Trainings below *work*, *kills* of them in all; :attr:`complaints` has what deviated."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.rng = random.Random(options.seed)
        logging.disable(logging.INFO)
        self.data = (binarise_sentences if options.sentences else binarise)(work / "corpus")
        logging.disable(logging.NOTSET)
        self.kills: List[Kill] = []
        self.complaints: List[str] = []
        self.trainings, self.attempts, self.reference_seconds = 0, 0, 0.0

    def _args(self, folder: Path) -> List[str]:
        words = f"""--cache-interval 2 --cache-proportion 0.3 --cache-ema 0.3 --dropout 0.2
            --max-epoch {self.options.epochs} --save-interval-updates 2 --keep-interval-updates 2
            --distributed-backend gloo"""
        if self.options.sentences:
            words += " --criterion arch_sentence_prediction --batch-size 10 --ddp-backend legacy_ddp"
            return [*sentence_args(self.data, folder / "save"), *words.split()]
        words += " --criterion arch_label_smoothed --max-tokens 120"
        return [*default_args(self.data, folder / "save"), *words.split()]

    def _start(self, folder: Path, number: int) -> Job:
        self.attempts += 1
        torchrun = self.options.launcher == "torchrun"
        return Job(self._args(folder), self.options.ranks, folder, number, torchrun)

    def _say(self, text: str) -> None:
        print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)

    def train_reference(self) -> None:
        """The uninterrupted run, and how long it trains."""
        folder = self.work / "reference"
        folder.mkdir()
        job, began = self._start(folder, 1), 0.0
        while not job.over:
            began = began or (time.monotonic() if job.board.read(0).updates_done else 0.0)
            time.sleep(0.01)
        self.reference_seconds = time.monotonic() - began
        last = job.board.read(0)
        bad = check_logs(job.logs(), killed=False)
        if any(job.codes.values()) or bad:
            raise RuntimeError(f"the uninterrupted run failed: {job.codes} {bad}; see {folder}")
        self._say(f"uninterrupted: {last.update} updates, {last.epoch} epochs, {self.reference_seconds:.1f} s")

    def _strike(self, job: Job, plan: Plan) -> bool:
        """Wait for the moment of *plan* and kill; False if the training ended before, or hangs (a complaint)."""
        entries, count, progress, patience = 0, -1, None, Patience(self.options.hang_after)
        while True:
            position = job.board.read(plan.rank)
            if plan.aim == "time":
                due = position.updates_done >= 1
            else:
                entries += position.phase == plan.aim and position.entered != count
                count = position.entered if position.phase == plan.aim else count
                due = entries >= plan.entry
            if due:
                break
            if job.over:
                return False
            if position != progress:
                progress = position
                patience.renew()
            if patience.is_over:
                self.complaints.append(f"hang: {job.folder}, attempt {job.number}: {position}")
                return False
            time.sleep(0.0005)
        until = time.monotonic() + plan.delay
        while time.monotonic() < until and not job.over:
            time.sleep(min(0.01, max(0.0, until - time.monotonic())))
        return not job.over

    def _kill(self, job: Job, plan: Plan) -> None:
        positions = tuple(job.board.read(rank) for rank in range(job.ranks))
        roles = [f"rank {rank}" for rank in range(job.ranks)]
        victims = self.rng.sample(roles, len(roles)) if plan.everybody else [f"rank {plan.rank}"]
        hit = job.kill(["torchrun", *victims] if plan.everybody else victims)
        survivors = job.stop_survivors(PATIENCE, LIMIT)
        if not hit:
            return
        self.kills.append(Kill(plan, positions, tuple(hit), "" if plan.everybody else f"survivors {survivors}"))
        self._say(f"kill {len(self.kills)}/{self.options.kills}, training {self.trainings}: {self.kills[-1]}")
        if survivors == "hung":
            self.complaints.append(f"hang after a kill: {job.folder}, attempt {job.number}")

    def train_once(self) -> None:
        """One training, killed until it ends or no kill is left, and its comparison."""
        self.trainings += 1
        folder = self.work / f"training-{self.trainings:03d}"
        folder.mkdir()
        logs: List[Path] = []
        killed = True
        while killed and not self.complaints:
            job = self._start(folder, len(logs) + 1)
            before = len(self.kills)
            more = before < self.options.kills
            plan = Plan.draw(self.rng, job.ranks, self.reference_seconds) if more else NEVER
            if self._strike(job, plan):
                self._kill(job, plan)
            killed = len(self.kills) > before
            self._finish(job, killed)
            logs += job.logs()
        if not self.complaints:
            reference = self.work / "reference"
            self.complaints += compare_losses(reference, folder, logs, sorted(reference.glob("attempt-*.log")))
            self.complaints += compare_end(reference, folder)
        if self.complaints:
            self._say(f"training {self.trainings} DEVIATES, see {folder}: {self.complaints[0][:500]}")
        else:
            self._say(f"training {self.trainings} equals the uninterrupted one")
            shutil.rmtree(folder)

    def _finish(self, job: Job, killed: bool) -> None:
        """Note what is wrong with an attempt that has ended; end one that has not."""
        if not job.over:
            job.kill([*(f"rank {rank}" for rank in range(job.ranks)), "torchrun"])
            job.wait(LIMIT)
        self.complaints += check_logs(job.logs(), killed)
        if not killed and any(job.codes.values()):
            self.complaints.append(f"{job.folder}, attempt {job.number}, not killed: exit statuses {job.codes}")

    def run(self) -> None:
        """All trainings; stops at the first that deviates."""
        self.train_reference()
        while len(self.kills) < self.options.kills and not self.complaints:
            self.train_once()

    def summary(self) -> str:
        """The final table."""
        rows = [
            ("seed, ranks, launcher", f"{self.options.seed}, {self.options.ranks}, {self.options.launcher}"),
            ("kills / attempts / trainings", f"{len(self.kills)} / {self.attempts} / {self.trainings}"),
            ("one rank / all ranks killed", _counts(k.plan.everybody for k in self.kills)),
            ("in a refresh epoch", str(sum(k.positions[k.plan.rank].refreshing for k in self.kills))),
            ("by epoch", _counts(k.positions[k.plan.rank].epoch for k in self.kills)),
            ("what the aimed rank did", _counts(k.positions[k.plan.rank].phase for k in self.kills)),
            ("survivors of one rank's kill", _counts(k.survivors.split()[-1] for k in self.kills if k.survivors)),
            ("deviations", str(len(self.complaints))),
        ]
        return "\n".join(f"{name:30} {value}" for name, value in rows)


def _counts(values: Iterable[object]) -> str:
    """``3 a, 1 b``: how often each value occurs."""
    names = {False: "one", True: "all"}
    counter = Counter(names[v] if isinstance(v, bool) else str(v) for v in values)
    return ", ".join(f"{counter[name]} {name}" for name in sorted(counter)) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="how many in all (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and victims (default: 1)")
    parser.add_argument("--ranks", type=int, default=2, help="processes of the training (default: 2)")
    parser.add_argument("--epochs", type=int, default=6, help="of a training; refreshes are in odd epochs (default: 6)")
    parser.add_argument("--launcher", choices=("fork", "torchrun"), default="fork",
                        help="fork: ranks start from a process that has imported fairseq, in a tenth of the time; "
                        "torchrun: as a user starts them, its agent among the victims (default: fork)")  # fmt: skip
    parser.add_argument("--sentences", action="store_true", help="train a sentence task, whose cache has one side")
    parser.add_argument("--hang-after", type=float, default=120, help="seconds without a step that count as a hang")
    parser.add_argument("--work-dir", type=Path, help="kept, with the logs (default: a temporary one, kept on failure)")
    options = parser.parse_args()
    work = options.work_dir or Path(tempfile.mkdtemp(prefix="soak-"))
    work.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}, files in {work}", flush=True)
    adopt_orphans()
    import_fairseq()
    soak = Soak(options, work)
    try:
        soak.run()
    finally:
        print(soak.summary(), *soak.complaints, sep="\n", flush=True)
    if not soak.complaints and options.work_dir is None:
        shutil.rmtree(work)
    return int(bool(soak.complaints))


if __name__ == "__main__":
    sys.exit(main())
