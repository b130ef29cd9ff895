"""Sets of sentences as fairseq's task for sentences reads them, in an encoder's tokens.

BIN/input0/{dict.txt,SUBSET.bin,SUBSET.idx}     BIN/input1/… for pairs
BIN/label/{dict.txt,SUBSET.bin,SUBSET.idx}      class 0 is the first of set.json, whatever their frequencies
BIN/label/SUBSET.label                          for numbers
BIN/set.json, BIN/train-options                 what fairseq-train needs: $(cat BIN/train-options)
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List, Sequence

from fairseq_adv.encoders.convert import DICTIONARY, TOKENIZER, read_facts
from fairseq_adv.encoders.vocabulary import Vocabulary, load_tokenizer

_REPORTS = {"f1": "--report-acc-and-f1", "matthews": "--report-mcc", "pearson": "--report-pearson-and-spearman"}
_BEST = {"accuracy": "accuracy", "matthews": "mcc", "pearson": "pearson_and_spearman"}


class Binariser:
    """Cuts rows to the encoder's positions, the longer sentence of a pair first, and writes them."""

    def __init__(self, encoder: Path) -> None:
        from fairseq.tasks.sentence_prediction import SentencePredictionTask

        facts = read_facts(encoder)
        self.dictionary_file = encoder / DICTIONARY
        self.dictionary = SentencePredictionTask.load_dictionary(str(self.dictionary_file))
        self.vocabulary = Vocabulary(load_tokenizer(str(encoder / TOKENIZER)))
        self.max_positions = facts["max_positions"]
        self.between = 2 if "--separator-token" in facts["options"] else 1

    def write(self, columns: Sequence[Sequence[str]], names: Sequence[str], output: Path, subset: str) -> int:
        """Write the *columns* (one, or two for pairs) as *names*; the number of rows that were cut."""
        split = [self.vocabulary.split(column) for column in columns]
        room = self.max_positions - 2 - (self.between if len(columns) == 2 else 0)
        cut = sum(cut_longest(row, room) for row in zip(*split))
        for name, rows in zip(names, split):
            self._write_column(rows, output / name / subset)
        return cut

    def _write_column(self, rows: Sequence[Sequence[str]], path: Path) -> None:
        encoded = (self.dictionary.encode_line(" ".join(row), add_if_not_exist=False) for row in rows)
        write_indexed(path, encoded, len(self.dictionary))


def cut_longest(row: Sequence[List[str]], room: int) -> bool:
    """Drop tokens from the end of the longest sentence of *row*, in place, until *room* is enough; whether any fell."""
    cut = False
    while sum(map(len, row)) > room:
        max(row, key=len).pop()
        cut = True
    return cut


def write_indexed(path: Path, rows: Any, vocabulary_size: int) -> None:
    """Tensors of symbols as the ``.bin`` and ``.idx`` of fairseq."""
    from fairseq.data.indexed_dataset import make_builder

    path.parent.mkdir(parents=True, exist_ok=True)
    builder = make_builder(f"{path}.bin", impl="mmap", vocab_size=vocabulary_size)
    for row in rows:
        builder.add_item(row)
    builder.finalize(f"{path}.idx")


def write_labels(labels: Sequence[str], classes: Sequence[str], output: Path, subset: str) -> None:
    """Numbers as text; classes by their number, which is also their symbol (fairseq's F1 reads it as a number)."""
    folder = output / "label"
    folder.mkdir(parents=True, exist_ok=True)
    if not classes:
        (folder / f"{subset}.label").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        return
    from fairseq.data import Dictionary

    (folder / "dict.txt").write_text("".join(f"{number} 1\n" for number in range(len(classes))), encoding="utf-8")
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    numbers = {name: str(number) for number, name in enumerate(classes)}
    rows = (dictionary.encode_line(numbers[label], add_if_not_exist=False) for label in labels)
    write_indexed(folder / subset, rows, len(dictionary))


def in_unit(numbers: Sequence[str], unit: float) -> List[str]:
    return [repr(float(number) / unit) for number in numbers]


def task_options(classes: Sequence[str], metrics: Sequence[str]) -> List[str]:
    """Options of the task and the criterion, and what the best checkpoint is chosen by."""
    words = ["--num-classes", str(len(classes) or 1)] + ([] if classes else ["--regression-target"])
    words += dict.fromkeys(_REPORTS[metric] for metric in metrics if metric in _REPORTS)
    return [*words, "--best-checkpoint-metric", _BEST[metrics[0]], "--maximize-best-checkpoint-metric"]


def binarise(subsets: Dict[str, List[Any]], facts: Dict[str, Any], encoder: Path, output: Path) -> Dict[str, int]:
    """Write *subsets* (rows with ``sentences`` and ``label``) to the new folder *output*; how many rows were cut."""
    binariser, cut = Binariser(encoder), {}
    for subset, examples in subsets.items():
        columns = list(zip(*(example.sentences for example in examples)))
        names = [f"input{number}" for number in range(len(columns))]
        cut[subset] = binariser.write(columns, names, output, subset)
        for name in names:
            shutil.copyfile(binariser.dictionary_file, output / name / "dict.txt")
        labels = [example.label for example in examples]
        write_labels(labels if facts["classes"] else in_unit(labels, facts["unit"]), facts["classes"], output, subset)
    options = task_options(facts["classes"], facts["metrics"])
    (output / "train-options").write_text(" ".join(options) + "\n", encoding="utf-8")
    (output / "set.json").write_text(json.dumps({**facts, "cut": cut}, indent=2) + "\n", encoding="utf-8")
    return cut
