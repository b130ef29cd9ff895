"""What ARCH's cache is a cache of, and which options say so."""

from __future__ import annotations

import hashlib
from typing import Any, Dict, Mapping, Tuple

from fairseq_adv.cache import CacheSpec
from fairseq_adv.neighbors import Neighbors
from fairseq_adv.perturb import Ball

CUT = "--max-source-positions, --max-target-positions and --max-tokens"

# field of a cache's fingerprint -> what a user changes it by
OPTIONS: Dict[str, Tuple[str, ...]] = {
    "data.num_samples": ("number of pairs in DATA",),
    "data.src_sizes": ("source lengths in DATA",),
    "data.tgt_sizes": ("target lengths in DATA",),
    "data.src_dict": ("source dictionary",),
    "data.tgt_dict": ("target dictionary",),
    "data.labels": ("labels in DATA",),
    "dim.src": ("--encoder-embed-dim",),
    "dim.tgt": ("--decoder-embed-dim",),
    "epsilon": ("--adv-eps",),
    "norm": ("--adv-norm",),
    "level": ("--adv-level",),
    "sides": ("--adv-sides",),
    "dtype": ("--cache-dtype",),
    "num_neighbors": ("--cache-num-neighbors",),
    "cache_set": ("--cache-neighbors", "--adv-seed", "--cache-proportion", f"pairs left by {CUT}"),
    "cache_set_size": ("--cache-neighbors", "--adv-seed", "--cache-proportion", f"pairs left by {CUT}"),
}


def cache_spec(
    cfg: Any, fingerprint: Mapping[str, Any], neighbors: Neighbors, dims: Mapping[str, int], ball: Ball, trained: int
) -> CacheSpec:
    """Everything that must be equal for a cache to be used again; *trained*: how many pairs training has."""
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
        options=OPTIONS,
        told=chosen_by(cfg, neighbors, trained),
    )


def chosen_by(cfg: Any, neighbors: Neighbors, trained: int) -> Dict[str, str]:
    """The options that decided the cache set, with their values."""
    told = {f"pairs left by {CUT}": str(trained)}
    if cfg.cache_neighbors:
        origin = f"{cfg.cache_neighbors} (proportion {neighbors.proportion}, seed {neighbors.seed})"
        return {**told, "--cache-neighbors": origin}
    return {**told, "--adv-seed": str(neighbors.seed), "--cache-proportion": str(neighbors.proportion)}
