"""Translate the validation and the test set with a run's checkpoint and score them: a run's ``score.json``.

Translations of a search with other settings (kept in ``RUN/search``), or older than the checkpoint, are made again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from tqdm import tqdm

from fairseq_adv.corpora.lines import all_lines
from fairseq_adv.scoring.bleu import Scoring, score
from fairseq_adv.whole_files import whole_file, write_text

UNRECORDED = "beam 5 lenpen tuned sentencepiece checkpoint_best.pt"  # the search of runs without such a record
PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Evaluation:
    """What is translated, with which checkpoint and search, and how it is scored."""

    data: Path = field(metadata={"positional": True, "help": "folder that fairseq-preprocess wrote"})
    run: Path = field(metadata={"positional": True, "help": "folder with checkpoints/"})
    raw: Path = field(metadata={"positional": True, "help": "folder with the references valid.LANG and test.LANG"})
    checkpoint: str = field(default="checkpoint_best.pt", metadata={"help": "file in RUN/checkpoints"})
    beam: int = field(default=5, metadata={"help": "hypotheses that the search keeps"})
    lenpen: Optional[float] = field(
        default=None,
        metadata={"help": "length penalty (default: the one of the highest BLEU on the validation set)"},
    )
    pair: Optional[str] = field(
        default=None, metadata={"help": "source-target, such as en-de (default: what the files of DATA say)"}
    )
    remove_bpe: str = field(default="sentencepiece", metadata={"help": "how pieces are joined"})
    tokenized: bool = field(
        default=False, metadata={"help": "DATA are Moses tokens: BLEU on them, and on the text that they make"}
    )
    sacrebleu_tokenize: Optional[str] = field(
        default=None, metadata={"help": "tokeniser of sacreBLEU's BLEU (default: the one for the language)"}
    )
    lowercase: bool = field(default=False, metadata={"help": "DATA are in lower case: case does not count"})

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"--beam must be at least 1, got {self.beam}")
        if self.pair is not None and len(self.pair.split("-")) != 2:
            raise ValueError(f"--pair must be source-target such as en-de, got {self.pair}")

    @property
    def model(self) -> Path:
        return self.run / "checkpoints" / self.checkpoint

    def languages(self) -> Tuple[str, str]:
        """Source and target. Raises ``FileNotFoundError`` if the data have no test set."""
        indexes = sorted(self.data.glob("test.*-*.*.idx"))
        if not indexes:
            raise FileNotFoundError(f"{self.data} holds no binarised test data")
        source, _, target = (self.pair or indexes[0].name.split(".")[1]).partition("-")
        return source, target

    def generated(self, subset: str) -> Path:
        return self.run / f"generate-{subset}.out"


def evaluate(evaluation: Evaluation, options: Sequence[str] = ()) -> Dict[str, object]:
    """Translate, score, write ``RUN/score.json``; *options* are more options of ``fairseq-generate``.

    Raises ``FileNotFoundError`` for what is missing and ``ValueError`` where the translation fails.
    """
    if not evaluation.model.is_file():
        raise FileNotFoundError(f"no checkpoint {evaluation.model}: train first")
    source, target = evaluation.languages()
    references = evaluation.raw / f"test.{target}"
    if not references.is_file():
        raise FileNotFoundError(f"no references {references}")
    for subset in ("test",) if evaluation.lenpen is not None else ("valid", "test"):
        if not is_fresh(evaluation, subset, options):
            translate(evaluation, subset, (source, target), options)
    write_text(evaluation.run / "search", search_settings(evaluation, options) + "\n")
    return score(scoring_of(evaluation, target))


def scoring_of(evaluation: Evaluation, target: str) -> Scoring:
    """How the translations are scored: with the length penalty of the search, or a tuned one."""
    tuned = evaluation.lenpen is None
    return Scoring(
        generated=evaluation.generated("test"),
        ref=evaluation.raw / f"test.{target}",
        tune=evaluation.generated("valid") if tuned else None,
        tune_ref=evaluation.raw / f"valid.{target}" if tuned else None,
        searched_with=1.0 if evaluation.lenpen is None else evaluation.lenpen,
        sacrebleu_tokenize=evaluation.sacrebleu_tokenize,
        lowercase=evaluation.lowercase,
        detokenize=evaluation.tokenized,
        tokens="generated" if evaluation.tokenized else "moses",
        lang=target,
        output=evaluation.run,
    )


def search_settings(evaluation: Evaluation, options: Sequence[str]) -> str:
    """All that the translations depend on beside data and checkpoint, in one line."""
    lenpen = "tuned" if evaluation.lenpen is None else evaluation.lenpen
    words = f"beam {evaluation.beam} lenpen {lenpen} {evaluation.remove_bpe} {evaluation.checkpoint} "
    return words + " ".join(options)


def is_fresh(evaluation: Evaluation, subset: str, options: Sequence[str]) -> bool:
    """Whether *subset* has been translated by this checkpoint and search."""
    record, out = evaluation.run / "search", evaluation.generated(subset)
    searched = record.read_text(encoding="utf-8") if record.is_file() else UNRECORDED
    same = searched.strip() == search_settings(evaluation, options).strip()
    return same and out.is_file() and out.stat().st_mtime > evaluation.model.stat().st_mtime


def translate(evaluation: Evaluation, subset: str, pair: Tuple[str, str], options: Sequence[str]) -> None:
    """Write ``RUN/generate-SUBSET.out``; logs go to ``RUN/generate.log``. ``ValueError`` if it fails."""
    log, total = evaluation.run / "generate.log", len(all_lines(evaluation.raw / f"{subset}.{pair[1]}"))
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ}
    with whole_file(evaluation.generated(subset)) as partial, log.open("wb") as errors, partial.open("wb") as out:
        process = subprocess.Popen(
            generate_command(evaluation, subset, pair, options), stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        assert process.stdout is not None
        with process.stdout, tqdm(total=total, unit=" sentences", desc=f"translate {subset}", disable=None) as bar:
            for line in process.stdout:
                out.write(line)
                bar.update(line.startswith(b"S-"))
        if process.wait() != 0:
            raise ValueError(f"fairseq-generate failed on {subset}: see {log}")


def generate_command(evaluation: Evaluation, subset: str, pair: Tuple[str, str], options: Sequence[str]) -> List[str]:
    """``fairseq-generate`` by this interpreter, on the GPU if there is one."""
    tuned = evaluation.lenpen is None
    search = ["--nbest", evaluation.beam] if tuned else ["--nbest", 1, "--lenpen", evaluation.lenpen]
    words = [sys.executable, "-m", "fairseq_cli.generate", evaluation.data, "--user-dir", PACKAGE]
    words += ["--path", evaluation.model, "--gen-subset", subset, "--source-lang", pair[0], "--target-lang", pair[1]]
    words += ["--beam", evaluation.beam, *search, "--max-len-a", 1.5, "--max-len-b", 20]
    words += ["--remove-bpe", evaluation.remove_bpe, "--max-tokens", 4096, "--required-batch-size-multiple", 1]
    device = [] if torch.cuda.is_available() else ["--cpu"]
    return [str(word) for word in (*words, *device, *options)]
