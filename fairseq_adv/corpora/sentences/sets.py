"""The sets that ``fairseq-adv sentences fetch`` knows, by name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Callable, Dict, Optional

from fairseq_adv.corpora.sentences.anli import fetch_anli
from fairseq_adv.corpora.sentences.glue import TASKS, fetch_glue
from fairseq_adv.corpora.sentences.labelled import SentenceSet
from fairseq_adv.corpora.sentences.movie import fetch_movie
from fairseq_adv.corpora.sentences.sts_b import fetch_sts_b

Fetch = Callable[[Path, Optional[str]], SentenceSet]

SETS: Dict[str, Fetch] = {
    "movie": partial(fetch_movie, regression=False),
    "movie-rating": partial(fetch_movie, regression=True),
    "stsb": fetch_sts_b,
    **{f"glue-{name}": partial(fetch_glue, name) for name in TASKS},
    "anli": fetch_anli,
}
