"""The eight tasks of GLUE that ARCH reports (Wang et al. 2019; ARCH, Table 8), scored on their development sets.

The labels of GLUE's test sets are not public: as in the paper's Table 5, the development set is both what the best
checkpoint is chosen by and what is reported. The positive class of F1 comes second.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from fairseq_adv.corpora.fetching import fetch
from fairseq_adv.corpora.sentences.labelled import Example, SentenceSet
from fairseq_adv.corpora.sentences.sts_b import UNIT

HOME = "https://dl.fbaipublicfiles.com/glue/data"
_MRPC_HOME = "https://dl.fbaipublicfiles.com/senteval/senteval_data"
_MRPC_FILES = {"msr_paraphrase_train.txt": _MRPC_HOME, "mrpc_dev_ids.tsv": HOME}
_NLI = ("contradiction", "neutral", "entailment")


@dataclass(frozen=True)
class GlueTask:
    """Where a task's columns are: by their name in the first line, or by number in files without one."""

    archive: str
    columns: Tuple[object, ...]  # of the sentence, or the sentences of a pair, and the label
    classes: Sequence[str]
    metrics: Sequence[str]
    dev: Tuple[Tuple[str, str], ...] = (("valid", "dev.tsv"),)


TASKS: Dict[str, GlueTask] = {
    "cola": GlueTask("CoLA.zip", (3, 1), ("0", "1"), ("matthews", "accuracy")),
    "sst2": GlueTask("SST-2.zip", ("sentence", "label"), ("0", "1"), ("accuracy",)),
    "mrpc": GlueTask("", ("#1 String", "#2 String", "Quality"), ("0", "1"), ("accuracy", "f1")),
    "qqp": GlueTask("QQP-clean.zip", ("question1", "question2", "is_duplicate"), ("0", "1"), ("accuracy", "f1")),
    "stsb": GlueTask("STS-B.zip", ("sentence1", "sentence2", "score"), (), ("pearson", "spearman")),
    "mnli": GlueTask(
        "MNLI.zip",
        ("sentence1", "sentence2", "gold_label"),
        _NLI,
        ("accuracy",),
        (("valid", "dev_matched.tsv"), ("mismatched", "dev_mismatched.tsv")),
    ),
    "qnli": GlueTask("QNLIv2.zip", ("question", "sentence", "label"), ("not_entailment", "entailment"), ("accuracy",)),
    "rte": GlueTask("RTE.zip", ("sentence1", "sentence2", "label"), ("not_entailment", "entailment"), ("accuracy",)),
}


def fetch_glue(name: str, download: Path, mirror: Optional[str]) -> SentenceSet:
    """Task *name* of :data:`TASKS`; its files come from GLUE's home, or by their own names from *mirror*."""
    task = TASKS[name]
    download.mkdir(parents=True, exist_ok=True)
    if name == "mrpc":
        paths = {file: fetch(file, [f"{home}/{file}"], download, mirror) for file, home in _MRPC_FILES.items()}
        train, ids = (path.read_text(encoding="utf-8-sig") for path in paths.values())
        return glue_set(name, mrpc_subsets(train, ids))
    archive = fetch(task.archive, [f"{HOME}/{task.archive}"], download, mirror)
    files = {"train": "train.tsv", **dict(task.dev)}
    return glue_set(name, {subset: read_tsv(_text(archive, file), task, file) for subset, file in files.items()})


def glue_set(name: str, subsets: Dict[str, List[Example]]) -> SentenceSet:
    task = TASKS[name]
    scored = [subset for subset, _ in task.dev]
    notes = ["scored on the development set, by which the checkpoint is chosen too"]
    unit = 1.0 if task.classes else UNIT
    return SentenceSet(f"glue-{name}", task.classes, task.metrics, scored, subsets, HOME, notes, unit)


def read_tsv(text: str, task: GlueTask, name: str) -> List[Example]:
    """Examples of one file. Rows that lack columns, which the published files of QQP have, are left out."""
    rows = [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]
    columns = list(task.columns)
    if any(isinstance(column, str) for column in columns):
        header, rows = rows[0], rows[1:]
        missing = [column for column in columns if column not in header]
        if missing:
            raise ValueError(f"{name} has no column {missing[0]!r}; its first line is {header}")
        columns = [header.index(str(column)) for column in columns]
    places = [int(str(column)) for column in columns]
    found = [[row[place] for place in places] for row in rows if len(row) > max(places)]
    if len(found) < 0.99 * len(rows):
        raise ValueError(f"{name}: only {len(found)} of {len(rows)} rows have the columns {task.columns}")
    return [Example(cells[0], cells[1] if len(cells) == 3 else None, cells[-1]) for cells in found]


def mrpc_subsets(train: str, dev_ids: str) -> Dict[str, List[Example]]:
    """MRPC's training file cut by the list of the development set's pairs of ids, as GLUE does."""
    header, *lines = train.split("\n")
    wanted = {tuple(line.split("\t")) for line in dev_ids.replace("\r", "").split("\n") if line}
    parts: Dict[str, List[str]] = {"train": [header], "valid": [header]}
    for line in lines:
        if line.strip():
            parts["valid" if tuple(line.split("\t")[1:3]) in wanted else "train"].append(line)
    return {
        subset: read_tsv("\n".join(part), TASKS["mrpc"], "msr_paraphrase_train.txt") for subset, part in parts.items()
    }


def _text(archive: Path, file: str) -> str:
    try:
        with zipfile.ZipFile(archive) as opened:
            path = next(name for name in opened.namelist() if Path(name).name == file and "__MACOSX" not in name)
            return opened.read(path).decode("utf-8-sig")
    except (zipfile.BadZipFile, StopIteration) as error:
        raise ValueError(f"{archive} has no {file} ({error or 'not in it'}): delete it and fetch it again") from error
