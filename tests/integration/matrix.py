"""Every criterion on every kind of model, task and set of ranks: trains as on one rank, or is refused at the start.

``torchrun --nproc_per_node 2 -m tests.integration.matrix JOBS`` runs the jobs that need two ranks, all in one pair of
processes. A combination is named ``criterion/model/task/ranks``.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import torch
import torch.distributed as dist

from tests.integration.running import default_args, free_port, run_command
from tests.integration.training import ARCHITECTURES, METHODS, train

UPDATES = 3
TWO_LAYERS = "--encoder-layers 2 --decoder-layers 2"
_LSTM = "--encoder-hidden-size 16 --decoder-hidden-size 16 --decoder-out-embed-dim 16"
_NO_TRANSFORMER = "--encoder-embed-dim 16 --decoder-embed-dim 16"
# model -> what replaces the model options of default_args, and what is added to them
MODELS: Dict[str, str] = {
    "transformer": "",
    "lstm": f"--arch lstm --encoder-layers 1 --decoder-layers 1 {_NO_TRANSFORMER} {_LSTM}",
    "fconv": f"--arch fconv {_NO_TRANSFORMER} --encoder-layers [(16,3)] --decoder-layers [(16,3)] "
    "--decoder-out-embed-dim 16",
    "untied": ARCHITECTURES["transformer"],
    "layerdrop": f"{TWO_LAYERS} --encoder-layerdrop 0.5 --decoder-layerdrop 0.5 --find-unused-parameters",
    "checkpoints": f"{TWO_LAYERS} --checkpoint-activations",
    "ema": "--store-ema --ema-decay 0.9",
}
TASKS = ("translation", "adversarial_translation", "multilingual_translation")
RANKS = ("one", "legacy_ddp", "pytorch_ddp")
METHODS_AND_MODES = {name: "" for name in METHODS if name.endswith("_label_smoothed")}
METHODS_AND_MODES["conadv_label_smoothed shifted"] = "--conadv-mode shifted"
METHODS_AND_MODES["r3f_label_smoothed detached"] = "--adv-detach-clean"
METHODS_AND_MODES["r3f_label_smoothed fused"] = "--adv-vocabulary fused"
METHODS_AND_MODES["smart_label_smoothed fused"] = "--adv-vocabulary fused --adv-detach-clean"
METHODS_AND_MODES["plain_label_smoothed"] = ""
NEEDS_OUR_TASK = ("freeat_label_smoothed", "conadv_label_smoothed")
KEEPS_BY_SAMPLE = ("arch", "conadv", "freeat")
# what differs between the second rank and a second micro-batch: layers that are drawn, and estimates that passes refine
OTHERS_ON_ONE_RANK = ("layerdrop", "spectral")
SGD = "--dropout 0 --optimizer sgd --lr 0.2 --clip-norm 0"


class Combination(NamedTuple):
    """One cell of the matrix."""

    criterion: str
    model: str
    task: str
    ranks: str

    def __str__(self) -> str:
        return "/".join(self).replace("_label_smoothed", "").replace("_translation", "")

    def refusal(self) -> Optional[str]:
        """A pattern of the sentence that refuses this combination, and ``None`` for one that trains."""
        if self.task == "multilingual_translation" and self.model in ("lstm", "fconv", "untied"):
            return "requires a FairseqMultiModel"  # fairseq's own
        if self.task == "multilingual_translation" and self.criterion.startswith(KEEPS_BY_SAMPLE):
            return r"--criterion \w+_\* .*--task translation"
        if self.task == "translation" and self.criterion in NEEDS_OUR_TASK:
            return "--task adversarial_translation"
        return None

    def args(self, data: Path, save_dir: Path) -> List[str]:
        """What ``fairseq-train`` is called with; on one rank two micro-batches make an update."""
        words = default_args(data, save_dir)
        if MODELS[self.model].startswith("--arch"):
            start, end = words.index("--arch"), words.index("--dropout")
            words = [*words[:start], *words[end:]]
        if self.task == "multilingual_translation":  # languages given would mean inference
            start, has_arch = words.index("--source-lang"), "--arch" in words
            words = [*words[:start], *words[start + 4 :]]
            words = [word for word in words if word != "--share-all-embeddings"]
            words += ["--lang-pairs", "en-de,de-en"]
            if has_arch:
                words += ["--arch", "multilingual_transformer"]
        words += ["--task", self.task, "--criterion", self.criterion.split()[0]]
        words += [*MODELS[self.model].split(), *METHODS_AND_MODES[self.criterion].split(), *SGD.split()]
        return [*words, *(["--update-freq", "2"] if self.ranks == "one" else ["--ddp-backend", self.ranks])]


Cell = Any  # a Combination, or sentence_matrix.py's, which answers the same


def combinations() -> Iterator[Combination]:
    """All cells."""
    for ranks, task, model, criterion in itertools.product(RANKS, TASKS, MODELS, METHODS_AND_MODES):
        yield Combination(criterion, model, task, ranks)


def diagonal() -> List[Combination]:
    """Few cells in which each criterion, model, task and set of ranks occurs, and what each backend has failed at."""
    models, names = itertools.cycle(MODELS), list(METHODS_AND_MODES)
    cells = [Combination(name, next(models), TASKS[i % 2], RANKS[1 + i % 2]) for i, name in enumerate(names)]
    failed = [
        ("arch_label_smoothed", "checkpoints", "translation"),
        ("rdrop_label_smoothed", "layerdrop", "translation"),
        ("disadv_label_smoothed", "transformer", "multilingual_translation"),
        ("r3f_label_smoothed detached", "checkpoints", "multilingual_translation"),
        ("r3f_label_smoothed fused", "transformer", "translation"),
        ("r3f_label_smoothed fused", "untied", "translation"),
        ("r3f_label_smoothed fused", "transformer", "multilingual_translation"),
        ("smart_label_smoothed fused", "checkpoints", "translation"),
        ("plain_label_smoothed", "transformer", "translation"),
        ("plain_label_smoothed", "layerdrop", "translation"),
    ]
    return list(dict.fromkeys([*cells, *(Combination(*cell, "pytorch_ddp") for cell in failed)]))


def outcome(args: List[str]) -> Dict[str, Any]:
    """Losses, gradient norms and parameters of the first updates, or why the training was refused."""
    try:
        trained = train(args, UPDATES)
    except ValueError as error:
        return {"refused": str(error)}
    assert all(math.isfinite(value) for value in (*trained.losses, *trained.gradient_norms)), trained.losses
    vector = torch.cat([value.reshape(-1) for value in trained.parameters().values()])
    return {"losses": trained.losses, "norms": trained.gradient_norms, "vector": vector}


def spread_over_ranks(result: Dict[str, Any]) -> float:
    """How far the ranks' parameters are from each other."""
    least, most = result["vector"].clone(), result["vector"].clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return float((most - least).abs().max())


def run_on_two_ranks(cells: List[Cell], data: Path, directory: Path) -> Dict[Cell, Dict[str, Any]]:
    """The outcomes of *cells*, whose parameters are also compared between the ranks."""
    jobs: List[Dict[str, Any]] = [
        {"args": cell.args(data, directory / f"run{n}"), "result": str(directory / f"{n}.pt")}
        for n, cell in enumerate(cells)
    ]
    plan = directory / "jobs.json"
    plan.write_text(json.dumps(jobs, default=str))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", free_port()]
    run_command([*launcher, "-m", "tests.integration.matrix", plan], check=False)
    results = [Path(job["result"]) for job in jobs]
    missing = {"error": "an earlier cell ended both ranks"}
    return {c: torch.load(r, weights_only=True) if r.exists() else missing for c, r in zip(cells, results)}


def main(plan: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    own = f"--distributed-world-size 2 --distributed-backend gloo --distributed-no-spawn --distributed-rank {rank}"
    for job in json.loads(plan.read_text()):
        try:
            result = outcome([*job["args"], *own.split()])
            if "vector" in result:
                result["spread"] = spread_over_ranks(result)
        except Exception:  # the other rank may wait for this one for ever
            torch.save({"error": traceback.format_exc()}, job["result"])
            os._exit(1)
        if rank == 0:
            torch.save(result, job["result"])
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
