"""A tiny corpus for sentence tasks, made of ``corpus.py``: three classes or numbers, single sentences or pairs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import List, Sequence

from tests.integration.corpus import sentence_pairs
from tests.integration.running import USER_DIR

CLASSES = ("plain", "and", "reason")


def label_of(english: str, names: Sequence[str] = CLASSES) -> str:
    """The class by its name: neither, two clauses are joined, or a reason is given."""
    words = set(english.split())
    return names[2 if {"because", "although"} & words else 1 if "and" in words else 0]


def number_of(english: str) -> float:
    """The number to predict: a tenth of the length, and 1 more for a reason."""
    return len(english.split()) / 10 + (label_of(english) == "reason")


def binarise_sentences(
    directory: Path, pairs: bool = False, regression: bool = False, classes: Sequence[str] = CLASSES
) -> Path:
    """Write *directory*/bin as the task reads it (``input0``, with *pairs* ``input1``, and ``label``)."""
    text, data = directory / "text", directory / "bin"
    text.mkdir(parents=True)
    splits = sentence_pairs()
    for split, rows in splits.items():
        _write(text / f"{split}.input0", [english for english, _ in rows])
        _write(text / f"{split}.input1", [german for _, german in rows])
        _write(text / f"{split}.label", [label_of(english, classes) for english, _ in rows])
    _write(text / "both", [side for rows in splits.values() for pair in rows for side in pair])
    _preprocess("--trainpref", text / "both", "--destdir", directory / "dictionary", "--dict-only")
    for part in ("input0", "input1")[: 1 + pairs]:
        _preprocess(*_splits(text, part), "--destdir", data / part, "--srcdict", directory / "dictionary" / "dict.txt")
    if regression:
        (data / "label").mkdir()
        for split, rows in splits.items():
            _write(data / "label" / f"{split}.label", [f"{number_of(english):.2f}" for english, _ in rows])
    else:
        _preprocess(*_splits(text, "label"), "--destdir", data / "label")
    shutil.rmtree(text)
    return data


def sentence_args(data: Path, save_dir: Path, regression: bool = False) -> List[str]:
    """A RoBERTa of two tiny layers on *data*, one epoch; append options to change any of it."""
    outputs = "--num-classes 1 --regression-target" if regression else "--num-classes 3"
    words = f"""{data} --save-dir {save_dir} --user-dir {USER_DIR} --task adversarial_sentence_prediction {outputs}
        --arch roberta --encoder-layers 2 --encoder-embed-dim 16 --encoder-ffn-embed-dim 32 --encoder-attention-heads 2
        --max-positions 64 --dropout 0.1 --attention-dropout 0.1 --criterion sentence_prediction
        --optimizer adam --lr 0.003 --lr-scheduler fixed --batch-size 16 --max-epoch 1 --seed 1 --num-workers 0
        --cpu --required-batch-size-multiple 1 --log-format json --log-interval 1 --no-epoch-checkpoints"""
    return words.split()


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _splits(text: Path, part: str) -> List[str]:
    """``fairseq-preprocess`` names a split by what its files begin with, and takes the rest for the language."""
    words: List[str] = []
    for split, option in (("train", "--trainpref"), ("valid", "--validpref"), ("test", "--testpref")):
        path = text / part / split
        path.parent.mkdir(exist_ok=True)
        shutil.copy(text / f"{split}.{part}", path)
        words += [option, str(path)]
    return words


def _preprocess(*words: object) -> None:
    from fairseq import options
    from fairseq_cli import preprocess

    arguments = ["--only-source", "--workers", "1", *map(str, words)]
    preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
