"""Opening ARCH's cache for a training run: which data, which neighbours, which configuration."""

from __future__ import annotations

import hashlib
import logging
import os
from typing import Any, Dict, Optional, Tuple

import numpy as np

from fairseq_adv.cache import CacheSpec, PerturbationCache, TorchComm, estimate_bytes
from fairseq_adv.data.cached_perturbations import CachedPerturbations
from fairseq_adv.neighbors import Neighbors, dataset_fingerprint, load_neighbors, random_neighbors
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


def training_fingerprint(task: Any, train_subset: str) -> Dict[str, Any]:
    """Sizes and dictionaries of the training data, as a neighbour file and a cache must have seen them."""
    dataset = task.dataset(train_subset)
    sizes = [getattr(dataset, name, None) for name in ("src_sizes", "tgt_sizes")]
    if any(s is None for s in sizes):
        raise ValueError(
            f"--criterion arch_label_smoothed caches perturbations of sentence pairs, but {type(dataset).__name__} of "
            f"subset {train_subset!r} does not tell src_sizes and tgt_sizes"
        )
    return dataset_fingerprint(
        np.asarray(sizes[0]), np.asarray(sizes[1]), task.source_dictionary.symbols, task.target_dictionary.symbols
    )


def choose_neighbors(cfg: Any, fingerprint: Dict[str, Any]) -> Neighbors:
    """The neighbours of ``--cache-neighbors``, or random ones with a warning."""
    if cfg.cache_neighbors:
        return load_neighbors(cfg.cache_neighbors, num_neighbors=cfg.cache_num_neighbors, expected=fingerprint)
    logger.warning(
        "no --cache-neighbors: uncached sentences take the perturbations of RANDOM cached ones (the paper's R-1-NN "
        "ablation). Build a file of nearest neighbours with: fairseq-adv neighbors DATA --output neighbors.safetensors "
        "--embeddings hf:bert-base-multilingual-cased --proportion %g",
        cfg.cache_proportion,
    )
    count = int(fingerprint["num_samples"])
    return random_neighbors(count, cfg.cache_proportion, cfg.cache_num_neighbors, seed=cfg.adv_seed)


def cache_spec(
    cfg: Any, fingerprint: Dict[str, Any], neighbors: Neighbors, dims: Dict[str, int], ball: Ball
) -> CacheSpec:
    """Everything that must be equal for a cache to be used again."""
    fields = {f"data.{key}": value for key, value in fingerprint.items()}
    fields.update({f"dim.{side}": dim for side, dim in dims.items()})
    fields.update(
        epsilon=ball.epsilon,
        norm=ball.norm,
        level=ball.level,
        dtype=str(cfg.cache_dtype),
        num_neighbors=int(cfg.cache_num_neighbors),
        cache_set=hashlib.sha256(neighbors.cache_ids.astype("<i8").tobytes()).hexdigest()[:16],
        cache_set_size=len(neighbors.cache_ids),
    )
    return CacheSpec(
        fields=fields,
        epsilon=ball.epsilon,
        dtype=str(cfg.cache_dtype),
        sides=tuple(dims),
        norm=ball.norm,
        level=ball.level,
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
    fingerprint = training_fingerprint(task, trainer.cfg.dataset.train_subset)
    neighbors = choose_neighbors(cfg, fingerprint)
    directory, run_id = run_identity(trainer.cfg.checkpoint.save_dir)
    world_size = trainer.data_parallel_world_size
    cache = PerturbationCache(
        cfg.cache_dir or directory,
        cache_spec(cfg, fingerprint, neighbors, dims, ball),
        ema=cfg.cache_ema,
        rank=trainer.data_parallel_rank,
        world_size=world_size,
        comm=TorchComm() if world_size > 1 else None,
        run_id=run_id,
        takeover=cfg.cache_takeover,
        expected_bytes=2 * generation_bytes(cfg, task.dataset(trainer.cfg.dataset.train_subset), neighbors, dims),
        checkpoint_folder=trainer.cfg.checkpoint.save_dir,
        placement=str(cfg.cache_placement),
    )
    if state is not None:
        cache.load_state_dict(state)
    return CachedPerturbations(cache, neighbors, cfg.cache_num_neighbors)
