"""Random start of a perturbation from a counter-based generator.

A number is a hash of (seed, stream, sample id, side, token, coordinate) and of nothing else: the same sample
gets the same start in any batch, at any place in it, on any rank and on any device, and no state of
torch's own generators is touched. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import math
from typing import Dict

import torch
from torch import Tensor

from fairseq_adv.perturb.balls import Ball
from fairseq_adv.perturb.layout import SIDES, Perturbation

DISTRIBUTIONS = ("uniform", "normal", "zero")


def _signed(value: int) -> int:
    """The two's-complement int64 that has the same 64 bits as the unsigned *value*."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's ``>>`` on int64 copies the sign bit."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _hash(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def _uniform(keys: Tensor, counters: Tensor) -> Tensor:
    """Numbers in the open interval (0, 1) with 24 random bits; *keys* and *counters* broadcast."""
    bits = _shift_right(_hash(keys + (counters + 1) * _GOLDEN), 40)
    return (bits.to(torch.float32) + 0.5) * 2.0**-24


def sample_noise(distribution: str, ids: Tensor, length: int, dim: int, seed: int, stream: int, side: str) -> Tensor:
    """Noise ``B x length x dim`` (fp32): uniform on (−1, 1), standard normal, or zero.

    *ids* (``B``, int64) name the samples; *stream* separates draws that must differ, such as epochs or updates.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"unknown distribution {distribution!r}: choose one of {', '.join(DISTRIBUTIONS)}")
    if distribution == "zero":
        return torch.zeros(ids.size(0), length, dim, device=ids.device)
    keys = _keys(ids, seed, stream, SIDES.index(side) + 1).view(-1, 1, 1)
    counters = torch.arange(length * dim, device=ids.device).view(1, length, dim)
    u = _uniform(keys, counters)
    if distribution == "uniform":
        return 2.0 * u - 1.0
    radius = (-2.0 * u.log()).sqrt()  # Box and Muller 1958
    return radius * (2.0 * math.pi * _uniform(_hash(keys + 1), counters)).cos()


def sample_numbers(ids: Tensor, seed: int, stream: int) -> Tensor:
    """One uniform number in (0, 1) for each sample of *ids* (``B``), of a stream that no noise is drawn from."""
    return _uniform(_keys(ids, seed, stream, 0), torch.zeros_like(ids))


def _keys(ids: Tensor, *words: int) -> Tensor:
    keys = ids.long()
    for word in words:
        keys = _hash(keys * _GOLDEN + _signed(word * 0xD1342543DE82EF95 + 1))
    return keys


def initial_perturbation(
    distribution: str,
    ids: Tensor,
    masks: Dict[str, Tensor],
    dims: Dict[str, int],
    ball: Ball,
    scale: float,
    seed: int,
    stream: int,
    sigma: float = 0.0,
) -> Perturbation:
    """δ⁰ of ARCH's Algorithm 1, line 3: noise on the real tokens, rescaled to norm ``ball.epsilon * scale``.

    With *sigma* > 0 it is *sigma* times the noise as drawn (ARCH's appendix B.2), within the ball.
    *masks* (``B x L``) and *dims* name the perturbed sides; see :func:`sample_noise` for the rest.
    """
    values = {}
    for side, mask in masks.items():
        noise = sample_noise(distribution, ids, mask.size(1), dims[side], seed, stream, side)
        values[side] = (
            ball.project(sigma * noise, mask) if sigma > 0 else ball.scaled_to(noise, mask, ball.epsilon * scale)
        )
    return Perturbation(values, masks)
