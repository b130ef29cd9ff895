"""What ``fairseq-generate`` printed, by sentence: hypotheses with their scores, and the references for them.

**Every sentence counts.** ``fairseq-generate`` drops sentences that are too long, and, without
``--required-batch-size-multiple 1``, its last batch. A missing sentence is an error here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

from fairseq_adv.corpora.lines import all_lines


class Hypothesis(NamedTuple):
    score: float  # log2 probability / length^penalty, as fairseq prints it
    tokens: str  # the H line: tokens as binarised, subwords joined if --remove-bpe was given
    text: str  # the D line: after fairseq's own detokenisation, if any
    length: int  # tokens of the model, end of sentence included


class Generation(NamedTuple):
    """A ``fairseq-generate`` output by sentence id; an id is the line number of the raw file, from 0."""

    nbest: Dict[int, List[Hypothesis]]
    references: Dict[int, str]


def read_generation(path: Path) -> Generation:
    """Parse the S/T/H/D/P lines of *path*; log lines in between are ignored."""
    nbest: Dict[int, List[Hypothesis]] = {}
    references: Dict[int, str] = {}
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            kind, _, rest = line.rstrip("\n").partition("-")
            label, _, payload = rest.partition("\t")
            if kind not in ("T", "H", "D", "P") or not label.isdigit():
                continue
            if kind == "T":
                references[int(label)] = payload
                continue
            hypotheses = nbest.setdefault(int(label), [])
            if kind == "H":
                score, _, tokens = payload.partition("\t")
                hypotheses.append(Hypothesis(float(score), tokens, tokens, 0))
            elif kind == "D":
                hypotheses[-1] = hypotheses[-1]._replace(text=payload.partition("\t")[2])
            else:
                hypotheses[-1] = hypotheses[-1]._replace(length=len(payload.split()))
    if not nbest:
        raise ValueError(f"{path} holds no hypotheses (H- lines): is it the output of fairseq-generate?")
    return Generation(nbest, references)


def best_hypotheses(generation: Generation, lenpen: float, searched_with: float) -> List[Hypothesis]:
    """The winner of each sentence, in the order of ids, under another length penalty than it was searched with."""

    def rescored(hypothesis: Hypothesis) -> float:
        return hypothesis.score * hypothesis.length ** (searched_with - lenpen)

    return [max(generation.nbest[key], key=rescored) for key in sorted(generation.nbest)]


def read_references(generation: Generation, path: Optional[Path], source: Path) -> List[str]:
    """The references from a raw file, or else from the T lines; one for every hypothesis, none left over."""
    if path is None:
        lines = [generation.references[key] for key in sorted(generation.references)]
    else:
        lines = all_lines(path)
    expected = range(len(lines)) if path else sorted(generation.references)
    missing = [key for key in expected if key not in generation.nbest]
    if missing or len(lines) != len(generation.nbest):
        raise ValueError(
            f"{source} has translations of {len(generation.nbest)} sentences, but {path or 'its T lines'} "
            f"has {len(lines)} references: {_which_is_longer(len(lines), len(generation.nbest), missing)}"
        )
    return lines


def _which_is_longer(references: int, hypotheses: int, missing: List[int]) -> str:
    if hypotheses > references:
        return f"the translations are longer, by {hypotheses - references}; are these the references of the same set?"
    longer = f"the references are longer, by {references - hypotheses}; " if references > hypotheses else ""
    return (
        f"{longer}the first missing ids are {missing[:5]}; run fairseq-generate with --required-batch-size-multiple 1, "
        "without --skip-invalid-size-inputs-valid-test, on the same set"
    )
