"""Work off many runs side by side, for what trains grids: never twice, and endable as a whole.

A run is a folder and the commands that complete it. It holds a lock as long as any of its processes lives, also when
what started them was killed: whoever starts again waits for what was left behind, and two commands that
work in one folder share the work.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Protocol, Sequence, Set, TextIO

Command = Sequence[object]

# The commands of this interpreter's environment come first, whether it was activated or not.
_PATH = os.pathsep.join([str(Path(sys.executable).parent), *filter(None, [os.environ.get("PATH")])])
_EPOCH = re.compile(r'\| valid \| \{"epoch": (\d+)')
_LOSS = re.compile(r'"valid_nll_loss": "([0-9.]+)"')


class Run(NamedTuple):
    """*commands* gives what is left to do in *folder*, step by step; each step sees what those before it left."""

    folder: Path
    commands: Callable[[], Iterable[Command]]


class Launcher(Protocol):
    """What completes runs, here or elsewhere."""

    stopped: bool

    def complete(self, run: Run) -> Optional[str]:
        """Do what is left of *run*; the reason if that failed, else None. Called from several threads."""

    def stop(self, *_: object) -> None:
        """End what runs and start nothing more; a handler of signals."""


class Processes:
    """The commands under way, each in a process group of its own, so that all of a run can be ended.

    To be called from threads other than the main one, where what a signal's handler raises would come between the
    start of a command and its being known.

    *devices* are numbers of GPUs: each command is given one that no other has (``CUDA_VISIBLE_DEVICES``).
    """

    def __init__(self, devices: Sequence[int] = ()) -> None:
        self._running: Set[subprocess.Popen] = set()
        self._devices: queue.SimpleQueue = queue.SimpleQueue()
        for device in devices:
            self._devices.put(device)
        self._has_devices = bool(devices)
        self.stopped = False

    def complete(self, run: Run) -> Optional[str]:
        """Do what is left of *run*; the reason if that failed, else None."""
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / "lock").open("w") as lock, self._device() as environment:
            if not self._locked(lock, run.folder):
                return f"{run.folder.name}: interrupted"
            for command in run.commands():
                reason = self.run(command, lock.fileno(), environment)
                if reason:
                    log = run.folder / "train.log"
                    end = "\n".join(f"    | {line}" for line in _tail(log, 4_000).splitlines()[-8:])
                    return f"failed: {run.folder.name}: {reason}; its log {log} ends with\n{end}"
        return None

    def run(self, command: Command, lock: int, environment: Optional[Dict[str, str]] = None) -> Optional[str]:
        """Run *command*, which inherits the descriptor *lock*; the reason if it failed, else None."""
        if self.stopped:
            return "interrupted"
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "PATH": _PATH, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=(lock,),
        )
        self._running.add(process)
        if self.stopped:  # while it was started
            self.stop()
        try:
            _, errors = process.communicate()
        finally:
            self._running.discard(process)
        return None if process.returncode == 0 else f"status {process.returncode}: {errors.strip()[-500:]}"

    def stop(self, *_: object) -> None:
        """End what runs and start nothing more; a handler of signals."""
        self.stopped = True
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    def _locked(self, lock: TextIO, folder: Path) -> bool:
        told = False
        while not self.stopped:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if not told:
                    print(f"{folder.name}: another process is at it; waiting until it has ended", file=sys.stderr)
                told = True
                time.sleep(0.2)
        return False

    @contextlib.contextmanager
    def _device(self) -> Iterator[Dict[str, str]]:
        if not self._has_devices:
            yield {}
            return
        device = self._devices.get()
        try:
            yield {"CUDA_VISIBLE_DEVICES": str(device)}
        finally:
            self._devices.put(device)


def stop_on_signals(launcher: Launcher) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, launcher.stop)


def work_off(runs: Sequence[Run], launcher: Launcher, jobs: int, epochs: Optional[int] = None) -> List[str]:
    """Complete *runs*, *jobs* at a time, with a line of progress; the reasons of those that failed, in order."""
    under_way: Dict[Path, None] = {}

    def one(run: Run) -> Optional[str]:
        under_way[run.folder] = None
        try:
            return launcher.complete(run)
        finally:
            under_way.pop(run.folder)

    show = _Progress(len(runs), epochs)
    show(0, [])
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, run) for run in runs]
        waiting: Set[Future] = set(futures)
        while waiting:
            _, waiting = wait(waiting, timeout=show.interval, return_when="FIRST_COMPLETED")
            show(len(runs) - len(waiting), list(under_way))
    show.close()
    return [reason for reason in (future.result() for future in futures) if reason]


def finish(
    runs: Sequence[Run],
    script: str,
    jobs: int,
    epochs: Optional[int],
    devices: Sequence[int] = (),
    launcher: Optional[Launcher] = None,
) -> int:
    """:func:`work_off` for *script* until it is done or interrupted; its exit status so far: 0, 1 (failures) or 130.

    Without a *launcher* the runs are completed on this machine.
    """
    launcher = launcher or Processes(devices)
    stop_on_signals(launcher)
    reasons = work_off(runs, launcher, jobs, epochs)
    if launcher.stopped:
        print(f"{script}: interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    for reason in reasons:
        print(f"{script}: {reason}", file=sys.stderr)
    return 1 if reasons else 0


class _Progress:
    """``3/18 runs  arch-seed1 epoch 12/40 nll 5.1``: one line rewritten on a terminal, else a line for each change."""

    def __init__(self, total: int, epochs: Optional[int]) -> None:
        self.total, self.epochs = total, epochs
        self.interactive = sys.stderr.isatty()
        self.interval = 2.0 if self.interactive else 15.0
        self.last = ""

    def __call__(self, done: int, folders: Sequence[Path]) -> None:
        line = f"  {done}/{self.total} runs" + "".join(f"  {folder.name} {self._state(folder)}" for folder in folders)
        if line != self.last:
            print(
                "\r\033[K" + line if self.interactive else line, end="" if self.interactive else "\n", file=sys.stderr
            )
            sys.stderr.flush()
        self.last = line

    def close(self) -> None:
        if self.interactive:
            print(file=sys.stderr)

    def _state(self, folder: Path) -> str:
        if (folder / "done").is_file():
            return "scoring"
        tail = _tail(folder / "train.log", 20_000)
        epochs, losses = _EPOCH.findall(tail), _LOSS.findall(tail)
        of = f"/{self.epochs}" if self.epochs else ""
        return f"epoch {epochs[-1] if epochs else 0}{of}" + (f" nll {losses[-1]}" if losses else "")


def _tail(path: Path, size: int) -> str:
    """The end of a text file, empty if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode("utf-8", errors="replace")
