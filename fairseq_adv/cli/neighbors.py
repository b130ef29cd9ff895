"""``fairseq-adv neighbors``: every training pair's nearest cached pairs, as a file for ``--cache-neighbors``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import numpy as np

from fairseq_adv.neighbors import (
    SIDES,
    NearestNeighbors,
    NeighborFileWriter,
    RandomNeighbors,
    choose_cache_set,
)
from fairseq_adv.neighbors.nearest import NeighborRows
from fairseq_adv.neighbors.search import SEARCHES
from fairseq_adv.neighbors.sentence_vectors import in_batches

HELP = "find the cached neighbors of every training pair, for --cache-neighbors of the arch criterions"
EXAMPLE = "fairseq-adv neighbors data-bin --output neighbors.safetensors --embeddings hf:bert-base-multilingual-cased"
REST = "options of the fairseq-train command that change its data: --truncate-source, --max-source-positions, --arch, …"
_SOURCES = "hf:PATH_OR_NAME (a BERT-like model), fairseq:CHECKPOINT or random"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="directory made by fairseq-preprocess, or one of a sentence task")
    parser.add_argument("--output", required=True, metavar="FILE", help="neighbor file to write (safetensors)")
    parser.add_argument("--embeddings", metavar="SOURCE", help=f"word embeddings to compare by: {_SOURCES}")
    for side, name in (("src", "source"), ("tgt", "target")):
        parser.add_argument(f"--{side}-embeddings", metavar="SOURCE", help=f"another SOURCE for the {name} side")
    parser.add_argument("--proportion", type=float, default=0.1, help="share of pairs that is cached, in (0, 1] (0.1)")
    parser.add_argument("--num-neighbors", type=int, default=5, help="neighbors K of each sentence (5)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the cached set and of random neighbors (1)")
    parser.add_argument("-s", "--source-lang", help="source language (told from the files)")
    parser.add_argument("-t", "--target-lang", help="target language (told from the files)")
    parser.add_argument(
        "--remove-bpe",
        nargs="?",
        const="@@ ",
        help="how pieces are joined to words for hf: models, as in fairseq-generate: sentencepiece, subword_nmt, …; "
        "bert: pieces that begin with ##",
    )
    parser.add_argument("--train-subset", default="train", help="split to read (train)")
    parser.add_argument("--search", choices=SEARCHES, default="auto", help="auto: faiss if installed, on a CPU (auto)")
    parser.add_argument("--batch-size", type=int, default=2048, help="sentences searched for at a time (2048)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, …; auto: a GPU if there is one (auto)")
    parser.add_argument("--json", action="store_true", help="print what was done as a JSON object")


@dataclass
class Finder:
    """How the lists of one side come about: ``blocks`` of them in the order of the ids, by ``search``."""

    source: str
    search: str
    blocks: Iterator[NeighborRows]


def run(args: argparse.Namespace) -> int:
    sides = ("src",) if _has_rows(args.data) else SIDES
    sources = {side: getattr(args, f"{side}_embeddings") or args.embeddings for side in sides}
    _check(args, sources)
    began = time.monotonic()
    corpus = _open(args)
    cache_ids = choose_cache_set(corpus.num_samples, args.proportion, args.seed, corpus.trained)
    settings = dict(fingerprint=corpus.fingerprint, sources=sources, proportion=args.proportion, seed=args.seed)
    facts: Dict[str, Any] = {"file": args.output, "pairs": corpus.num_samples, "cached": len(cache_ids)}
    with NeighborFileWriter(
        args.output, corpus.num_samples, cache_ids, args.num_neighbors, sides, **settings
    ) as writer:
        for side in sides:
            finder = _finder(args, corpus, cache_ids, side, sources[side])
            facts[side] = _write_side(writer, side, finder, corpus.num_samples)
    facts.update(num_neighbors=args.num_neighbors, seconds=round(time.monotonic() - began, 1))
    print(json.dumps(facts) if args.json else _describe(facts))
    return 0


def _has_rows(data: str) -> bool:
    """Whether *data* are the rows of a sentence task, which have one side."""
    return (Path(data) / "input0").is_dir()


def _open(args: argparse.Namespace) -> Any:
    """The data as a training run with the options behind ``--`` reads them; without any, the split as it is."""
    from fairseq_adv.data.binarised import open_corpus
    from fairseq_adv.data.training_corpus import open_sentence_corpus, open_training_corpus

    if _has_rows(args.data):
        return open_sentence_corpus(Path(args.data), ["--train-subset", args.train_subset, *args.rest])
    if not args.rest:
        return open_corpus(args.data, args.source_lang, args.target_lang, args.train_subset)
    words = [args.data, "--train-subset", args.train_subset]
    words += ["--source-lang", args.source_lang] if args.source_lang else []
    words += ["--target-lang", args.target_lang] if args.target_lang else []
    return open_training_corpus([*words, *args.rest])


def _check(args: argparse.Namespace, sources: Dict[str, Optional[str]]) -> None:
    """Refuse what needs no look at the data."""
    for side, source in sources.items():
        if not source:
            raise ValueError(f"give --embeddings SOURCE (or --{side}-embeddings SOURCE): {_SOURCES}")
        kind, _, name = source.partition(":")
        if source != "random" and (kind not in ("hf", "fairseq") or not name):
            raise ValueError(f"unknown source of embeddings {source!r}: give {_SOURCES}")
    if "tgt" not in sources and args.tgt_embeddings:
        raise ValueError(f"--tgt-embeddings {args.tgt_embeddings}: rows of a sentence task have one side; leave it out")
    if not 0 < args.proportion <= 1:
        raise ValueError(f"--proportion must be in (0, 1], got {args.proportion}")
    for option in ("num_neighbors", "batch_size"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be >= 1, got {getattr(args, option)}")


def _finder(args: argparse.Namespace, corpus: Any, cache_ids: np.ndarray, side: str, source: str) -> Finder:
    if source == "random":
        lists = RandomNeighbors(corpus.num_samples, cache_ids, args.num_neighbors, args.seed)
        return Finder(source, "random", _random_blocks(lists, side, args.batch_size))
    kind, _, name = source.partition(":")
    words, weight = (_bert_words if kind == "hf" else _checkpoint_words)(args, corpus.side(side), side, name)
    nearest = NearestNeighbors(
        words,
        weight,
        cache_ids,
        args.num_neighbors,
        search=args.search,
        batch_size=args.batch_size,
        device=_device(args.device),
    )
    return Finder(source, nearest.search_name, nearest.lists(corpus.num_samples))


def _random_blocks(lists: RandomNeighbors, side: str, batch_size: int) -> Iterator[NeighborRows]:
    for ids in in_batches(np.arange(lists.num_samples), batch_size):
        rows = lists.lookup(ids, side)
        yield NeighborRows(rows, np.full(rows.shape, np.nan, dtype=np.float32))


@lru_cache(maxsize=1)
def _load_bert(name: str) -> Any:
    from fairseq_adv.neighbors.bert import load_bert

    return load_bert(name)  # both sides often use one model


def _bert_words(args: argparse.Namespace, sentences: Any, side: str, name: str) -> Any:
    bert = _load_bert(name)
    symbols: List[str] = sentences.dictionary.symbols
    if args.remove_bpe is None and any("\u2581" in s or s.endswith("@@") or s.startswith("##") for s in symbols):
        print(
            f"the {side} dictionary has pieces of words: without --remove-bpe the tokenizer of {name} sees pieces, "
            "not words",
            file=sys.stderr,
        )
    return lambda ids: bert.split(sentences.text(ids, args.remove_bpe)), bert.weight


def _checkpoint_words(_: argparse.Namespace, sentences: Any, side: str, name: str) -> Any:
    from fairseq_adv.data.checkpoint_embeddings import read_checkpoint_embeddings

    return sentences.tokens, read_checkpoint_embeddings(name, side, len(sentences.dictionary))


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return name


def _write_side(writer: NeighborFileWriter, side: str, finder: Finder, num_samples: int) -> Dict[str, Any]:
    """Write the lists of one side as they are found; tells the mean cosine of the nearest neighbor."""
    from tqdm import tqdm

    total = 0.0
    with tqdm(total=num_samples, desc=f"neighbors of {side}", unit=" sentences", file=sys.stderr) as progress:
        for block in finder.blocks:
            writer.write(side, block.neighbor_ids, block.cosine)
            total += float(block.cosine[:, 0].sum(dtype=np.float64))
            progress.update(len(block.cosine))
    mean = None if np.isnan(total) else round(total / num_samples, 4)
    return {"embeddings": finder.source, "search": finder.search, "mean_cosine": mean}


def _describe(facts: Dict[str, Any]) -> str:
    lines = [f"wrote {facts['file']}: {facts['pairs']} pairs, {facts['num_neighbors']} neighbors of {facts['cached']}"]
    for side in (side for side in SIDES if side in facts):
        mean = facts[side]["mean_cosine"]
        nearest = "" if mean is None else f", mean cosine of the nearest {mean}"
        lines.append(f"  {side}: {facts[side]['embeddings']} ({facts[side]['search']}){nearest}")
    return "\n".join(lines)
