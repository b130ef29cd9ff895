"""A training job of real processes that can be killed: ranks forked from a warm process, or under ``torchrun``.

Importing torch and fairseq takes seconds. The forked launcher imports them once and starts each rank from that state;
from there on a rank runs what ``fairseq-train`` runs, with the variables that ``torchrun`` sets, and a process group
of its own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Dict, List, Optional

from tests.faults.patience import Patience
from tests.faults.rank_process import Board, train
from tests.integration.running import ROOT, command_path, free_port

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)


def adopt_orphans() -> None:
    """Make this process the parent of ranks whose launcher was killed, so that it can see them end."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)


def import_fairseq() -> None:
    """Import what a rank needs; no thread may exist afterwards, since a fork would lose it."""
    import fairseq_cli.train  # noqa: F401
    import torch

    torch.set_num_threads(1)
    import fairseq_adv
    import fairseq_adv.cache.store

    fairseq_adv.register()

    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"{threads} threads after the imports: set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1")


class Job:
    """``fairseq-train ARGS`` on *ranks* processes, with logs, board and recorded losses in *folder*.

    *number* counts the attempts. :attr:`codes` has the exit status of each process that has ended, negative for a
    signal, by its role: ``rank 0``, ``rank 1``, …, and ``torchrun``.
    """

    def __init__(self, args: List[str], ranks: int, folder: Path, number: int, torchrun: bool = False) -> None:
        self.args, self.ranks, self.folder, self.number = args, ranks, folder, number
        self.board_path, self.losses = folder / "board", folder / "sums"
        self.board = Board(self.board_path, ranks, clear=True)
        self.codes: Dict[str, int] = {}
        self._pids: Dict[str, int] = {}
        self._agent: Optional[subprocess.Popen] = None
        if torchrun:
            self._start_torchrun()
        else:
            port = free_port()
            for rank in range(ranks):
                self._pids[f"rank {rank}"] = self._fork(rank, port)

    # ---- start --------------------------------------------------------------------------------------------

    def log(self, rank: int) -> Path:
        """Output of *rank*; under torchrun one file for all."""
        return self.folder / (f"attempt-{self.number:03d}" + ("" if self._agent else f"-rank-{rank}") + ".log")

    def logs(self) -> List[Path]:
        return sorted({self.log(rank) for rank in range(self.ranks)})

    def _start_torchrun(self) -> None:
        words = [command_path("torchrun"), "--nproc_per_node", self.ranks, "--master_port", free_port()]
        words += ["-m", "tests.faults.rank_process", self.board_path, self.losses, *self.args]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        with open(self.folder / f"attempt-{self.number:03d}.log", "wb") as log:
            self._agent = subprocess.Popen([str(w) for w in words], env=env, stdout=log, stderr=log, cwd=ROOT)
        self._pids["torchrun"] = self._agent.pid

    def _fork(self, rank: int, port: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            log = os.open(self.log(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            numbers = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=self.ranks, MASTER_PORT=port)
            os.environ.update({key: str(value) for key, value in numbers.items()}, MASTER_ADDR="127.0.0.1")
            train(self.board_path, self.losses, self.args)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    # ---- end ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Learn pids from the board (torchrun's children) and collect those that have ended."""
        if self._agent is not None:
            for rank in range(self.ranks):
                pid = self.board.read(rank).pid
                if pid:
                    self._pids[f"rank {rank}"] = pid
        for role in list(self._pids):
            if role not in self.codes:
                code = self._ended(role)
                if code is not None:
                    self.codes[role] = code

    def _ended(self, role: str) -> Optional[int]:
        if role == "torchrun":
            assert self._agent is not None
            return self._agent.poll()
        try:
            pid, status = os.waitpid(self._pids[role], os.WNOHANG)
            return os.waitstatus_to_exitcode(status) if pid else None
        except ChildProcessError:  # torchrun's child, or collected by it
            return None if Path(f"/proc/{self._pids[role]}").exists() else 0

    @property
    def over(self) -> bool:
        """Whether every process has ended."""
        self._look()
        return all(role in self.codes for role in self._pids)

    def kill(self, roles: List[str]) -> List[str]:
        """SIGKILL those of *roles* that run; their names."""
        self._look()
        hit = [role for role in roles if role in self._pids and role not in self.codes]
        for role in hit:
            os.kill(self._pids[role], signal.SIGKILL)
        return hit

    def wait(self, seconds: float) -> bool:
        """Whether all ended within *seconds*."""
        patience = Patience(seconds)
        while not self.over:
            if patience.is_over:
                return False
            time.sleep(0.01)
        return True

    def stop_survivors(self, patience: float, limit: float) -> str:
        """After a kill: let the others notice for *patience* seconds, then end them as torchrun does with SIGTERM.

        Returns ``noticed``, ``terminated``, or ``hung`` if SIGTERM did not end them within *limit* seconds.
        """
        if self.wait(patience):
            return "noticed"
        for role in self._pids:
            if role not in self.codes and self._agent is None:
                os.kill(self._pids[role], signal.SIGTERM)
        if self.wait(limit):
            return "terminated"
        self.kill(list(self._pids))
        self.wait(limit)
        return "hung"
