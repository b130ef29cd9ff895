"""Perturbations that half-precision word embeddings round away, told before the first update."""

from __future__ import annotations

import logging
from typing import Iterable, List, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_adv.perturb.hooks import owner_of_embeddings
from fairseq_adv.perturb.rounding import share_lost_to_rounding

logger = logging.getLogger(__name__)

TOLD = 0.1  # the share of coordinates that may be lost without a word
TYPICAL_LENGTH = 28  # words; a mean over the words of a sentence of norm ε has about ε / length


class SmallNoise(NamedTuple):
    """The smallest perturbation that a method adds to a word: ``size`` is its ℓ2 norm, or that of each coordinate."""

    what: str
    option: str
    value: float
    size: float
    by_coordinate: bool = False


def rebuilt_noise(epsilon: float) -> SmallNoise:
    """A word's share of a perturbation of norm *epsilon* that is rebuilt from cached neighbours."""
    return SmallNoise("a perturbation that is rebuilt from neighbors", "--adv-eps", epsilon, epsilon / TYPICAL_LENGTH)


def warn_of_rounding(model: nn.Module, sides: Iterable[str], noises: List[SmallNoise]) -> None:
    """Tell which of *noises* the word embeddings of *model* mostly do not take up: nothing is lost in fp32."""
    for weight in half_precision_tables(model, sides) if noises else ():
        for noise in noises:
            norm = noise.size * weight.size(1) ** 0.5 if noise.by_coordinate else noise.size
            share = share_lost_to_rounding(weight, norm)
            if share > TOLD:
                logger.warning(
                    "%d %% of the coordinates of %s are too small to change %s word embeddings at %s %g: train with "
                    "--amp, which keeps them in fp32, or --fp16 in place of --bf16, or raise %s",
                    *(round(100 * share), noise.what, str(weight.dtype).replace("torch.", "")),
                    *(noise.option, noise.value, noise.option),
                )


def half_precision_tables(model: nn.Module, sides: Iterable[str]) -> List[Tensor]:
    """The tables of word embeddings (``V x D``) of *sides* that are not in fp32, a shared one once."""
    tables = {}
    for side in sides:
        weight = getattr(owner_of_embeddings(model, side).embed_tokens, "weight", None)
        if isinstance(weight, Tensor) and weight.dtype in (torch.float16, torch.bfloat16):
            tables[id(weight)] = weight
    return list(tables.values())
