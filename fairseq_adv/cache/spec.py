"""What a cache is a cache of, and how many bytes it will take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Sequence, Tuple, Union

FORMAT_VERSION = 1
DTYPES = {"fp32": 4, "fp16": 2, "int8": 1}

Field = Union[str, int, float]


@dataclass(frozen=True)
class CacheSpec:
    """The fingerprint of a cache and the set that its perturbations lie in.

    *fields* name the data set, the dictionaries and the configuration; a cache is used again only if all are
    equal. *dtype* is the number format of δ/ε on disk. *options* says for a field what a user changes it by, and *told*
    the values of those that the fields themselves do not show; both only serve to explain a refusal.
    """

    fields: Mapping[str, Field]
    epsilon: float
    dtype: str = "fp16"
    sides: Tuple[str, ...] = ("src", "tgt")
    norm: str = "l2"
    level: str = "sentence"
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"--cache-dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    def to_json(self) -> Dict[str, Field]:
        """All that must be equal, as one flat dictionary."""
        own: Dict[str, Field] = {
            "format": FORMAT_VERSION,
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "norm": self.norm,
        }
        return {**self.fields, **own, "level": self.level, "sides": ",".join(self.sides)}


def differing_fields(there: Mapping[str, Field], here: Mapping[str, Field]) -> List[str]:
    """``name: old -> new`` for each field that is not equal."""
    names = sorted(set(there) | set(here))
    return [f"{n}: {there.get(n, '(none)')} -> {here.get(n, '(none)')}" for n in names if there.get(n) != here.get(n)]


def changed_options(there: Mapping[str, Field], told: Mapping[str, str], spec: CacheSpec) -> List[str]:
    """``option: old -> new`` for what differs between *spec* and a cache of the fields *there*, explained by *told*."""
    here, changes = spec.to_json(), []
    for name in sorted(name for name in set(there) | set(here) if there.get(name) != here.get(name)):
        options = spec.options.get(name, (name,))
        known = [o for o in options if o in {**told, **spec.told} and told.get(o) != spec.told.get(o)] if told else []
        changes += [
            f"{option}: {told.get(option, 'not given')} -> {spec.told.get(option, 'not given')}" for option in known
        ]
        if not known:
            changes.append(f"{' or '.join(options)}: {there.get(name, '(none)')} -> {here.get(name, '(none)')}")
    return list(dict.fromkeys(changes))


def estimate_bytes(
    num_src_tokens: int, num_tgt_tokens: int, num_records: int, src_dim: int, tgt_dim: int, dtype: str = "fp16"
) -> int:
    """Bytes of one generation: the values, an fp32 mean for each record and side, and the index."""
    width, scale = DTYPES[dtype], 4 if dtype == "int8" else 0
    values = num_src_tokens * (src_dim * width + scale) + num_tgt_tokens * (tgt_dim * width + scale)
    return values + num_records * (4 * (src_dim + tgt_dim) + 64)
