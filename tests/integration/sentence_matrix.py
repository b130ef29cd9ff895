"""The matrix of ``matrix.py`` for sentences: criterions, encoders, tasks, classes or numbers, and sets of ranks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

from fairseq_adv.criterions.heads.sentence import SentenceHead
from tests.integration.sentences import sentence_args
from tests.integration.training import methods_of

_BART = """--arch bart_base --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --decoder-embed-dim 16
    --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-attention-heads 2
    --add-prev-output-tokens --max-source-positions 64 --max-target-positions 64"""
# model -> what is added to the options of sentence_args
MODELS = {
    "roberta": "",
    "adv_roberta": "--arch adv_roberta",
    "frozen": "--arch adv_roberta --adv-freeze-encoder",
    "layerdrop": "--encoder-layerdrop 0.5",
    "bart": f"{_BART} --checkpoint-activations",
    "ema": "--store-ema --ema-decay 0.9",
    "spectral": "--spectral-norm-classification-head",
}
TASKS = ("sentence_prediction", "adversarial_sentence_prediction")
KINDS = ("classes", "numbers")  # folders of the data, and what is reported
REPORTS = {"classes": "", "numbers": "--report-pearson-and-spearman"}
RANKS = {"one": "--update-freq 2", "legacy_ddp": "", "pytorch_ddp": "--find-unused-parameters"}
METHODS = dict.fromkeys(methods_of(SentenceHead), "")
METHODS["conadv_sentence_prediction shifted"] = "--conadv-mode shifted"
IN_CI = list(METHODS)
METHODS["smart_sentence_prediction detached"] = "--adv-detach-clean"
METHODS["smart_sentence_prediction recompute"] = "--adv-passes recompute"
METHODS["r3f_sentence_prediction concat"] = "--adv-passes concat"
NEEDS_OUR_TASK = ("arch_sentence_prediction", "freeat_sentence_prediction", "conadv_sentence_prediction")
SGD = "--dropout 0 --attention-dropout 0 --optimizer sgd --lr 0.05 --clip-norm 0 --batch-size 12"


class SentenceCell(NamedTuple):
    """One cell; what ``matrix.walk`` asks of it is what it asks of a ``Combination``."""

    criterion: str
    model: str
    task: str
    kind: str
    ranks: str

    def __str__(self) -> str:
        return "/".join(self).replace("_sentence_prediction", "")

    def refusal(self) -> Optional[str]:
        """A pattern of the sentence that refuses this cell, and ``None`` for one that trains."""
        if self.task == "sentence_prediction" and self.criterion in NEEDS_OUR_TASK:
            return "--task adversarial_sentence_prediction"
        if self.model == "spectral" and self.criterion == "conadv_sentence_prediction":
            return "--conadv-mode shifted"
        return None

    def args(self, data: Path, save_dir: Path) -> List[str]:
        """What ``fairseq-train`` is called with; on one rank two micro-batches make an update."""
        words = [*sentence_args(data / self.kind / "bin", save_dir, self.kind == "numbers"), *SGD.split()]
        words += ["--task", self.task, "--init-token", "0", "--criterion", self.criterion.split()[0]]
        for more in (MODELS[self.model], METHODS[self.criterion], REPORTS[self.kind], RANKS[self.ranks]):
            words += more.split()
        return words if self.ranks == "one" else [*words, "--ddp-backend", self.ranks]


def cells() -> Iterator[SentenceCell]:
    """All cells of one kind of data or the other, in turns."""
    for ranks in RANKS:
        kinds = itertools.cycle(KINDS)
        for task, model, criterion in itertools.product(TASKS, MODELS, METHODS):
            yield SentenceCell(criterion, model, task, next(kinds), ranks)


def diagonal() -> List[SentenceCell]:
    """Few cells in which each criterion, model, task, kind and set of ranks occurs."""
    models, backends = itertools.cycle(MODELS), list(RANKS)[1:]
    return [
        SentenceCell(name, next(models), TASKS[1 - i % 3 // 2], KINDS[i % 2], backends[i // 2 % 2])
        for i, name in enumerate(IN_CI)
    ]
