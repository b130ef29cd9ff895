"""Running fairseq in tests: as a user does, in processes of its own, or inside the test for speed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from fairseq_adv.in_process import Training, build_trainer, epoch_batches, save_checkpoint  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
USER_DIR = ROOT / "fairseq_adv"
_LOG_LINE = re.compile(r"\| INFO \| (\w+) \| (\{.*\})$")

Log = Dict[str, List[Dict[str, Any]]]
Arguments = Sequence[object]  # words of a command line: str() makes them text


def default_args(data: Path, save_dir: Path, user_dir: Optional[Path] = USER_DIR) -> List[str]:
    """A tiny transformer on *data*, one epoch of a dozen updates; append options to change any of it."""
    words = f"""{data} --save-dir {save_dir} --task translation --source-lang en --target-lang de
        --arch transformer --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16
        --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-attention-heads 2
        --share-all-embeddings --dropout 0.1 --criterion label_smoothed_cross_entropy --label-smoothing 0.1
        --optimizer adam --lr 0.003 --lr-scheduler fixed --max-tokens 200 --max-epoch 1 --seed 1 --num-workers 0
        --cpu --required-batch-size-multiple 1 --log-format json --log-interval 1 --no-epoch-checkpoints"""
    return [*words.split(), *([] if user_dir is None else ["--user-dir", str(user_dir)])]


@dataclass
class Run:
    """A finished command; ``log`` maps fairseq's tags (``train_inner``, ``train``, ``valid``) to their JSON lines."""

    args: List[str]
    returncode: int
    stdout: str
    stderr: str

    @property
    def log(self) -> Log:
        log: Log = {}
        for line in self.stdout.splitlines():
            found = _LOG_LINE.search(line)
            if found:
                # numbers are strings in fairseq's log
                values = {k: _number(v) for k, v in json.loads(found[2]).items()}
                log.setdefault(found[1], []).append(values)
        return log

    def column(self, key: str, tag: str = "train_inner") -> List[float]:
        """The values of *key* in the lines of *tag*, in order; the key may lack fairseq's prefix ``train_``."""
        lines = self.log.get(tag, [])
        return [line[key] if key in line else line[f"{tag}_{key}"] for line in lines]


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def run_command(
    words: Arguments, cwd: Optional[Path] = None, env: Optional[Mapping[str, str]] = None, check: bool = True
) -> Run:
    """Run *words* with one thread; with *check*, a failure raises ``AssertionError`` with the end of both outputs."""
    full_env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
    full_env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    full_env.update(env or {})
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env=full_env, capture_output=True, text=True, timeout=500, check=False)
    run = Run(command, done.returncode, done.stdout, done.stderr)
    if check and run.returncode != 0:
        raise AssertionError(
            f"{' '.join(command)}\nreturned {run.returncode}\n{run.stdout[-3000:]}\n{run.stderr[-5000:]}"
        )
    return run


def command_path(name: str) -> str:
    """The console command *name* of the running environment."""
    return str(Path(sys.executable).parent / name)


def run_fairseq_train(
    args: Arguments,
    cwd: Optional[Path] = None,
    env: Optional[Mapping[str, str]] = None,
    check: bool = True,
    nproc: int = 1,
) -> Run:
    """``fairseq-train ARGS``; with *nproc* > 1 under plain ``torchrun --nproc_per_node NPROC`` and gloo."""
    words: List[Any] = [command_path("fairseq-train"), *args]
    if nproc > 1:
        launcher = [command_path("torchrun"), "--nproc_per_node", nproc, "--master_port", free_port()]
        words = [*launcher, *words, "--distributed-backend", "gloo"]
    return run_command(words, cwd, env, check)


def free_port() -> int:
    """A TCP port on this machine that nobody listens on."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return int(server.getsockname()[1])
