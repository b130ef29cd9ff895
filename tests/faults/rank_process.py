"""One rank of a real ``fairseq-train`` that shows on a board, a small mapped file, what it is doing.

The killer reads the board while the rank trains, so that it can aim at a seal, a commit or a checkpoint and say
where its signal fell. ``python -m tests.faults.rank_process BOARD LOSSES ARGS`` is what ``torchrun`` starts.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import struct
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

PHASES = ("start", "resume", "update", "seal", "commit", "checkpoint", "validation", "between", "end")
_ROW = struct.Struct("<8i")  # pid, phase, how many phases have begun, epoch, update, refreshing, updates done, unused


class Position(NamedTuple):
    """What a rank was doing: ``phase`` of :data:`PHASES`, the ``entered``-th phase that it entered."""

    pid: int
    phase: str
    entered: int
    epoch: int
    update: int
    refreshing: bool
    updates_done: int


class Board:
    """Positions of *ranks* processes in the file *path*, which is made afresh with *clear*."""

    def __init__(self, path: Path, ranks: int, clear: bool = False) -> None:
        if clear:
            path.write_bytes(bytes(_ROW.size * ranks))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _ROW.size * ranks)

    def read(self, rank: int) -> Position:
        pid, phase, count, epoch, update, refreshing, done, _ = _ROW.unpack_from(self._map, rank * _ROW.size)
        return Position(pid, PHASES[phase], count, epoch, update, bool(refreshing), done)

    def write(self, rank: int, position: Position) -> None:
        numbers = (position.pid, PHASES.index(position.phase), *position[2:], 0)
        _ROW.pack_into(self._map, rank * _ROW.size, *numbers)


class Reporter:
    """Writes the position of *rank* to *board*; phases nest, the inner one shows."""

    def __init__(self, board: Board, rank: int) -> None:
        self.board, self.rank = board, rank
        self.now = Position(os.getpid(), "start", 0, 0, 0, False, 0)
        self.show()

    def show(self, **changes: Any) -> None:
        self.now = self.now._replace(**changes)
        self.board.write(self.rank, self.now)

    def phase(self, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorate what is done in phase *name*."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def shown(*args: Any, **kwargs: Any) -> Any:
                outer = self.now.phase
                self.show(phase=name, entered=self.now.entered + 1)
                result = function(*args, **kwargs)
                self.show(phase="between" if outer == "start" else outer)
                return result

            return shown

        return decorate


def instrument(reporter: Reporter, losses: Path) -> None:
    """Make fairseq and the cache report to *reporter*, and append the exact sums of each update to *losses*.

    Those of each batch of a validation go to a file beside it.
    """
    import fairseq_cli.train as fairseq_train
    from fairseq import checkpoint_utils
    from fairseq.trainer import Trainer

    from fairseq_adv.cache.store import PerturbationCache
    from fairseq_adv.criterions.arch import ArchCriterion

    def wrap(owner: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        setattr(owner, name, wrapper(getattr(owner, name)))

    wrap(checkpoint_utils, "load_checkpoint", reporter.phase("resume"))
    wrap(checkpoint_utils, "save_checkpoint", reporter.phase("checkpoint"))
    wrap(PerturbationCache, "_seal_and_gather", reporter.phase("seal"))
    wrap(PerturbationCache, "commit", reporter.phase("commit"))
    wrap(fairseq_train, "validate", reporter.phase("validation"))
    wrap(Trainer, "train_step", reporter.phase("update"))
    wrap(Trainer, "_reduce_and_log_stats", lambda original: _recorded(original, reporter, losses))
    wrap(ArchCriterion, "begin_epoch", lambda original: _epoch_shown(original, reporter))


def _recorded(original: Callable[..., Any], reporter: Reporter, losses: Path) -> Callable[..., Any]:
    def reduce(trainer: Any, logging_outputs: Any, sample_size: Any, grad_norm: Optional[Any] = None) -> Any:
        keys = {key for output in logging_outputs for key in output}
        sums = {key: sum(float(output.get(key, 0)) for output in logging_outputs) for key in keys}
        update = trainer.get_num_updates()
        if grad_norm is None:
            _append(losses.with_name(losses.name.replace("sums", "validation")), update=update, **sums)
        else:
            _append(losses, update=update, gnorm=float(grad_norm), **sums)
            reporter.show(update=update, updates_done=reporter.now.updates_done + 1)
        return original(trainer, logging_outputs, sample_size, grad_norm)

    return reduce


def _append(path: Path, **values: float) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(f"{json.dumps(values, sort_keys=True)}\n".encode())  # one write: a kill leaves all of it or nothing


def _epoch_shown(original: Callable[..., Any], reporter: Reporter) -> Callable[..., Any]:
    def begin_epoch(criterion: Any, epoch: int) -> None:
        original(criterion, epoch)
        reporter.show(epoch=epoch, refreshing=bool(criterion.refreshing))

    return begin_epoch


def recorded(path: Path) -> Iterator[Dict[str, float]]:
    """The sums that were recorded in *path*, in the order of training."""
    for line in path.read_text().splitlines() if path.exists() else ():
        yield json.loads(line)


def train(board: Path, losses: Path, args: List[str]) -> None:
    """``fairseq-train ARGS`` as the rank that the launcher's variables name."""
    import torch
    from fairseq_cli.train import cli_main

    torch.set_num_threads(1)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    reporter = Reporter(Board(board, ranks), rank)
    instrument(reporter, losses.with_name(f"{losses.name}-{rank}"))
    sys.argv = ["fairseq-train", *args]
    cli_main()
    reporter.show(phase="end")


if __name__ == "__main__":
    import fairseq_adv

    fairseq_adv.register()
    train(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
