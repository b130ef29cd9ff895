"""Adversarial NLI (Nie et al. 2020): three rounds, trained on together, scored on each (ARCH, Table 6)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Dict, List, Optional

from fairseq_adv.corpora.fetching import fetch
from fairseq_adv.corpora.sentences.labelled import Example, SentenceSet

ARCHIVE = "anli_v1.0.zip"
HOME = "https://dl.fbaipublicfiles.com/anli"
CLASSES = {"c": "contradiction", "n": "neutral", "e": "entailment"}
ROUNDS = (1, 2, 3)


def fetch_anli(download: Path, mirror: Optional[str]) -> SentenceSet:
    download.mkdir(parents=True, exist_ok=True)
    return anli(fetch(ARCHIVE, [f"{HOME}/{ARCHIVE}"], download, mirror))


def anli(archive: Path) -> SentenceSet:
    """``train`` and ``valid`` are all rounds; ``dev_r1`` … ``test_r3`` and ``test``, all rounds of it, are scored."""
    try:
        with zipfile.ZipFile(archive) as opened:
            paths = {"/".join(Path(name).parts[-2:]): name for name in opened.namelist() if "__MACOSX" not in name}
            parts = {
                (s, r): _read(opened.read(paths[f"R{r}/{s}.jsonl"])) for s in ("train", "dev", "test") for r in ROUNDS
            }
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{archive} is not a complete {ARCHIVE} ({error}): delete it and fetch it again") from error
    together = {s: [e for r in ROUNDS for e in parts[s, r]] for s in ("train", "dev", "test")}
    subsets: Dict[str, List[Example]] = {"train": together["train"], "valid": together["dev"], "test": together["test"]}
    subsets.update({f"{s}_r{r}": parts[s, r] for s in ("dev", "test") for r in ROUNDS})
    scored = [*(name for name in subsets if name not in ("train", "test")), "test"]
    return SentenceSet("anli", tuple(CLASSES.values()), ("accuracy",), scored, subsets, f"{HOME}/{ARCHIVE}")


def _read(data: bytes) -> List[Example]:
    rows = [json.loads(line) for line in data.decode("utf-8").split("\n") if line.strip()]
    return [Example(row["context"], row["hypothesis"], CLASSES[row["label"]]) for row in rows]
