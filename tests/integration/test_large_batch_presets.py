"""The presets of ``examples/translation/large_batch``: what they set, that they train, and how they are launched."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest

from tests.integration.running import ROOT, build_trainer, free_port
from tests.integration.training import go_on

FOLDER = ROOT / "examples/translation/large_batch"
TINY = """--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16
    --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-attention-heads 2
    --target-batch-tokens 300 --max-tokens 200 --cpu --num-workers 0 --disable-validation --no-epoch-checkpoints"""
# batch in target tokens, lr, warm-up, betas, architecture, micro-batch
PUBLISHED = {
    "32k": (32000, 5e-4, 4000, "(0.9, 0.98)", "transformer_vaswani_wmt_en_de_big", 3584),
    "64k": (64000, 1e-3, 4000, "(0.9, 0.98)", "transformer_iwslt_de_en", 4096),
    "400k": (400000, 1e-3, 4000, "(0.9, 0.98)", "transformer_vaswani_wmt_en_de_big", 3584),
    "737k": (737280, 1.732e-3, 400, "(0.86, 0.92)", "transformer_wmt_en_de_big_t2t", 9216),
}
NAMES = sorted(path.stem for path in FOLDER.glob("[0-9]*.sh"))


def bash(*words: Any, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
    environment["PATH"] = os.pathsep.join(
        [variables.get("PATH", ""), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    command = ["bash", *(str(word) for word in words)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def command_of(name: str, *words: Any) -> List[str]:
    """The words that the preset would start."""
    done = bash(FOLDER / f"{name}.sh", *words[:2], "--print", *words[2:])
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def test_every_preset_is_tested() -> None:
    assert sorted(PUBLISHED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_preset_parses_to_the_published_settings(name: str, tiny_corpus: Path, tmp_path: Path) -> None:
    import fairseq_adv

    fairseq_adv.register()
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    program, *words = command_of(name, tiny_corpus, tmp_path, "--gpus", 1, "--", "--max-update", 7)
    assert Path(program).name == "fairseq-train"
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), input_args=words))
    batch, lr, warmup, betas, arch, micro_batch = PUBLISHED[name]
    assert (cfg.task._name, cfg.task.target_batch_tokens) == ("adversarial_translation", str(batch))
    schedule = cfg.lr_scheduler
    assert (schedule._name, schedule.lr_base_batch_tokens) == ("inverse_sqrt_batch", batch)
    assert (list(cfg.optimization.lr), schedule.lr_warmup_updates) == ([lr], warmup)
    assert (cfg.optimizer._name, str(cfg.optimizer.adam_betas)) == ("adam", betas)
    assert cfg.model.arch == arch and cfg.dataset.max_tokens == micro_batch
    assert cfg.common.fp16 and cfg.optimization.max_update == 7
    assert cfg.criterion._name == "label_smoothed_cross_entropy" and cfg.criterion.label_smoothing == 0.1


@pytest.mark.parametrize(("name", "method"), [*((name, "plain") for name in NAMES), ("400k", "scala")])
def test_preset_trains_and_its_rate_follows_another_batch(
    name: str, method: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    own = ["--gpus", 1, "--precision", "fp32", "--method", method]
    words = command_of(name, tiny_corpus, tmp_path, *own, "--", "--max-update", 2, *TINY.split())[1:]
    training = build_trainer(words)
    trained = go_on(training, 2)
    assert len(trained.losses) == 2 and all(0 < loss < 20 for loss in trained.losses)
    assert ("adv_norm_src" in trained.logs[0]) == (method == "scala")
    batch, lr, warmup, *_ = PUBLISHED[name]
    assert training.trainer.lr_scheduler.step_update(warmup) == pytest.approx(lr * (300 / batch) ** 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--", "say when to stop, such as -- --max-update 50000"),
        ("--fp16 -- --max-update 1", "unknown option --fp16 (options of fairseq-train go after --)"),
        ("--precision fp8 -- --max-update 1", "--precision must be fp16, bf16 or fp32, got fp8"),
        ("--gpus 0 -- --max-update 1", "--gpus must be a positive number, got 0"),
        ("--nodes 2 --master a -- --max-update 1", "--nodes 2 needs --node-rank 0 to 1, got none"),
        ("--nodes 2 --node-rank 2 --master a -- --max-update 1", "--nodes 2 needs --node-rank 0 to 1, got 2"),
        ("--nodes 2 --node-rank 1 -- --max-update 1", "--nodes 2 needs --master HOST[:PORT]"),
        ("--method", "--method needs a value"),
    ],
)
def test_refusals(words: str, message: str, tmp_path: Path) -> None:
    done = bash(FOLDER / "32k.sh", "data", "run", *words.split(), folder=tmp_path)
    assert done.returncode == 2 and f"32k.sh: {message}" in done.stderr
    assert not list(tmp_path.iterdir())


def test_torchrun_on_one_node_and_on_several() -> None:
    stop = ("--", "--max-epoch", 1)
    one = command_of("32k", "data", "run", "--gpus", 8, *stop)
    assert [Path(word).name for word in one[:5]] == [
        "torchrun",
        "--standalone",
        "--nproc_per_node",
        "8",
        "fairseq-train",
    ]
    several = command_of("32k", "data", "run", "--gpus", 4, "--nodes", 3, "--node-rank", 2, "--master", "n0:123", *stop)
    expected = "--nnodes 3 --node_rank 2 --nproc_per_node 4 --master_addr n0 --master_port 123"
    assert " ".join(several[1:11]) == expected


def test_slurm_script_trains_one_job_on_two_nodes(tiny_corpus: Path, tmp_path: Path) -> None:
    """With stand-ins for SLURM's commands: srun starts a task on each of two nodes, both this machine."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text("#!/bin/sh\nprintf 'localhost\\nelsewhere\\n'\n")
    srun = 'shift\nSLURM_NODEID=1 "$@" >second.log 2>&1 &\nSLURM_NODEID=0 "$@" && wait $!\n'
    (commands / "srun").write_text(f"#!/bin/bash\n{srun}")
    for command in commands.iterdir():
        command.chmod(0o755)
    for script in ("slurm.sh", "32k.sh", "preset.sh"):
        shutil.copy(FOLDER / script, tmp_path / script)
    job = {"SLURM_JOB_NODELIST": "n[0-1]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1"}
    job["SLURM_JOB_ID"] = str(free_port() - 20000)
    more = f"--max-update 2 --log-format json --log-interval 1 --distributed-backend gloo {TINY}"
    words = ["slurm.sh", "32k.sh", tiny_corpus, "run", "--precision", "fp32", "--", *more.split()]
    done = bash(*words, folder=tmp_path, PATH=str(commands), **job)
    assert done.returncode == 0, done.stderr[-3000:] + (tmp_path / "second.log").read_text()[-3000:]
    lines = [json.loads(line.split(" | ")[-1]) for line in done.stdout.splitlines() if "| train_inner |" in line]
    assert [line["num_updates"] for line in lines] == ["1", "2"]
    assert all(abs(float(line["batch_tokens"]) - 300) <= 200 for line in lines)  # a micro-batch
    assert "training on 2 devices" in done.stdout
    assert "train_inner" not in (tmp_path / "second.log").read_text()
    assert (tmp_path / "run/checkpoint_last.pt").is_file()
