"""Opening ARCH's cache for a training run: which data, which neighbours, which configuration."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from typing import Any, Dict, Optional, Tuple

import numpy as np

from fairseq_adv.cache import PerturbationCache, TorchComm, estimate_bytes
from fairseq_adv.criterions.frame.arch_spec import cache_spec
from fairseq_adv.data.cached_perturbations import CachedPerturbations
from fairseq_adv.data.trained_pairs import trained_pairs, training_fingerprint
from fairseq_adv.neighbors import Neighbors, load_neighbors, random_neighbors
from fairseq_adv.perturb import Ball

logger = logging.getLogger(__name__)


def refuse_unknown_samples(task: Any, trainer: Any) -> None:
    """Raise ``ValueError`` where a sample id would not name one training pair throughout the run."""
    dataset = trainer.cfg.dataset
    if task.has_sharded_data(dataset.train_subset):
        raise ValueError(
            f"DATA lists several folders ({trainer.cfg.task.data}), one for each epoch: their sample ids collide in "
            "the cache; give one folder with all data"
        )
    if dataset.train_subset in dataset.valid_subset.split(","):
        raise ValueError(
            f"--train-subset {dataset.train_subset} is also a --valid-subset: fairseq would hand both one iterator and "
            "skip the first epoch; give the validation set another name"
        )
    share = getattr(task.cfg, "adv_source_bpe_dropout", 0)
    if share > 0:
        raise ValueError(
            f"--adv-source-bpe-dropout {share:g} cuts a sentence into other pieces in each epoch, but arch keeps a "
            "perturbation for each of its tokens: take --adv-source-cutoff, or another method"
        )


def choose_neighbors(cfg: Any, fingerprint: Dict[str, Any], trained: np.ndarray) -> Neighbors:
    """The neighbours of ``--cache-neighbors``, or random ones with a warning; only pairs that are *trained* count."""
    if cfg.cache_neighbors:
        neighbors = load_neighbors(cfg.cache_neighbors, num_neighbors=cfg.cache_num_neighbors, expected=fingerprint)
        check_proportion(cfg, neighbors)
        never = len(neighbors.cache_ids) - int(trained[neighbors.cache_ids].sum())
        if never:
            logger.warning(
                "%d of the %d pairs that %s chose for the cache are too long to be trained. Further neighbors "
                "stand in for them; build the file with the options of fairseq-train behind --, and others are chosen",
                *(never, len(neighbors.cache_ids), cfg.cache_neighbors),
            )
            neighbors.restrict(trained)
        return neighbors
    logger.warning(
        "no --cache-neighbors: uncached sentences take the perturbations of RANDOM cached ones (the paper's R-1-NN "
        "ablation). Build a file of nearest neighbours with: fairseq-adv neighbors DATA --output neighbors.safetensors "
        "--embeddings hf:bert-base-multilingual-cased --proportion %g",
        cfg.cache_proportion,
    )
    return random_neighbors(len(trained), cfg.cache_proportion, cfg.cache_num_neighbors, cfg.adv_seed, trained)


def check_proportion(cfg: Any, neighbors: Neighbors) -> None:
    """Refuse a ``--cache-proportion`` that is not the neighbour file's: the file has chosen its cache set."""
    there = neighbors.proportion
    if there is None:  # a file of another program
        there = round(len(neighbors.cache_ids) / neighbors.num_samples, 4)
    if not math.isclose(there, cfg.cache_proportion, rel_tol=1e-6):
        raise ValueError(
            f"--cache-proportion {cfg.cache_proportion:g}, but neighbor file {cfg.cache_neighbors} caches a share of "
            f"{there:g} of the pairs: give --cache-proportion {there:g}, or build a file with "
            f"`fairseq-adv neighbors --proportion {cfg.cache_proportion:g}`"
        )


def generation_bytes(cfg: Any, dataset: Any, neighbors: Neighbors, dims: Dict[str, int]) -> int:
    """Bytes of one generation, from the lengths of the cache set's sentences."""
    tokens = {side: int(np.asarray(getattr(dataset, f"{side}_sizes"))[neighbors.cache_ids].sum()) for side in dims}
    return estimate_bytes(
        tokens.get("src", 0),
        tokens.get("tgt", 0),
        len(neighbors.cache_ids),
        dims.get("src", 0),
        dims.get("tgt", 0),
        str(cfg.cache_dtype),
    )


def run_identity(save_dir: str) -> Tuple[str, str]:
    """The default cache directory and the name by which a restarted run is known as the same run."""
    path = os.path.abspath(save_dir)
    return os.path.join(path, "perturbations"), hashlib.sha256(path.encode()).hexdigest()[:16]


def open_perturbations(
    cfg: Any, task: Any, trainer: Any, dims: Dict[str, int], ball: Ball, state: Optional[Dict[str, Any]]
) -> CachedPerturbations:
    """The cache and the neighbours of this run, at the generation that the checkpoint names.

    Every rank calls it. Raises ``ValueError`` for a cache or a neighbour file that does not belong to this
    data set or these options, naming what differs.
    """
    refuse_unknown_samples(task, trainer)
    dataset = task.dataset(trainer.cfg.dataset.train_subset)
    fingerprint = training_fingerprint(task, dataset)
    trained = trained_pairs(task, dataset, trainer.get_model().max_positions(), trainer.cfg.dataset.max_tokens)
    neighbors = choose_neighbors(cfg, fingerprint, trained)
    directory, run_id = run_identity(trainer.cfg.checkpoint.save_dir)
    world_size = trainer.data_parallel_world_size
    cache = PerturbationCache(
        cfg.cache_dir or directory,
        cache_spec(cfg, fingerprint, neighbors, dims, ball, int(trained.sum())),
        ema=cfg.cache_ema,
        rank=trainer.data_parallel_rank,
        world_size=world_size,
        comm=TorchComm() if world_size > 1 else None,
        run_id=run_id,
        takeover=cfg.cache_takeover,
        expected_bytes=2 * generation_bytes(cfg, dataset, neighbors, dims),
        checkpoint_folder=trainer.cfg.checkpoint.save_dir,
        placement=str(cfg.cache_placement),
    )
    if state is not None:
        cache.load_state_dict(state)
    limit = None if cfg.cache_means_memory < 0 else int(cfg.cache_means_memory * 1e9)
    return CachedPerturbations(cache, neighbors, trained, trainer.device, limit)
