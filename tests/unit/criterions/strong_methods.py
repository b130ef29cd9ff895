"""Methods whose penalty is a visible part of loss and gradient, ARCH with a cache that serves every sample."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from fairseq_adv.data.served_batch import ServedBatch, ServedSide
from tests.unit.criterions import reference as ref
from tests.unit.criterions.updates import (
    DIM,
    make_criterion,
)

LAMBDA = 0.7
# strong enough that the penalty is a visible part of loss and gradient
KNOWN_BEFOREHAND = {
    "arch": {"adv_eps": 9.0},  # a ball that what is cached lies in
    "conadv": {"conadv_alpha": 0.5},
    "r3f": {"r3f_sigma": 0.3},
    "rdrop": {"rdrop_alpha": 2.0},
    "simcut": {"simcut_p": 0.4, "simcut_alpha": 1.0},
}
WITH_DIVERGENCE = {
    "arch": KNOWN_BEFOREHAND["arch"],
    "r3f": KNOWN_BEFOREHAND["r3f"],
    "scala": {"scala_sigma": 0.05, "scala_radius": 0.6, "scala_step_size": 0.5},
    "simcut": KNOWN_BEFOREHAND["simcut"],
    "smart": {"adv_eps": 0.6, "adv_step_size": 0.3},
    "vat": {"vat_eps": 0.8},
}


def cached_words(batch):
    """What the cache holds for ARCH in these tests: ``B x L x D`` for each side, L the longest sentence."""
    generator = torch.Generator().manual_seed(7)
    shapes = {side: batch["net_input"][name].shape for side, name in ref.TOKENS.items()}
    return {side: 0.2 * torch.randn(*shape, DIM, generator=generator) for side, shape in shapes.items()}


def serving(batch):
    """A cache in which every sample of *batch* is found."""

    def serve(known):
        sides = {}
        for side in known.lengths:
            values = cached_words(batch)[side][known.ids]
            for row, length in enumerate(known.lengths[side]):
                values[row, length:] = 0.0
            none = torch.zeros(len(known.ids), 1)
            means = none.unsqueeze(-1).expand(-1, 1, values.size(2))
            sides[side] = ServedSide(none[:, 0] == 0, values, means, none, none > 0)
        return ServedBatch(sides, cached=len(known.ids))

    return SimpleNamespace(serve=serve)


def method(name, batch, **options):
    strength = {} if name in ("conadv", "disadv", "freeat", "freelb", "plain") else {"adv_lambda": LAMBDA}
    criterion = make_criterion(f"{name}_label_smoothed", **{**strength, **options})
    if name == "arch":
        criterion.perturbations, criterion.started = serving(batch), True
    return criterion
