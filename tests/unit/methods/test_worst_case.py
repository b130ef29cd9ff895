"""A sample's worst-case perturbation does not depend on the batch that it comes in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fairseq_adv.losses import masked_divergence
from fairseq_adv.methods.worst_case import Ascent, worst_case_perturbation
from fairseq_adv.perturb import Ball, BatchPasses, EmbeddingHook
from tests.unit.toy_models import toy_batch, toy_model

ASCENT = Ascent(Ball(0.3), 3, 0.1, "uniform", 1.0, seed=1)


def perturbations(model, hook, batch):
    """δ of each sample by id and side, ``len_i x D``."""
    inputs = batch["net_input"]

    def run():
        return torch.log_softmax(model(**inputs)[0], dim=-1).flatten(0, 1)

    tokens = {"src": inputs["src_tokens"], "tgt": inputs["prev_output_tokens"]}
    passes: Any = BatchPasses(run, run, hook, tokens, batch["id"], shared_masks=False)
    clean, mask = passes.clean().detach(), batch["target"].ne(1).view(-1)

    def divergence(log_q: Any) -> Tensor:
        return masked_divergence(clean, log_q, mask, "sym-kl")

    delta, broken = worst_case_perturbation(passes, divergence, ASCENT, stream=1)
    assert not broken.any()
    sides = {side: delta.sentences(side) for side in delta.sides}
    return {i: {side: rows[k] for side, rows in sides.items()} for k, i in enumerate(batch["id"].tolist())}


def select(batch, rows):
    """The batch of some *rows*, with as much padding as they need."""
    inputs = batch["net_input"]
    sources, prefixes, targets = (
        t[rows] for t in (inputs["src_tokens"], inputs["prev_output_tokens"], batch["target"])
    )
    width = int(sources.ne(1).sum(dim=1).max())
    length = int(targets.ne(1).sum(dim=1).max())
    return {
        "id": batch["id"][rows],
        "net_input": {
            "src_tokens": sources[:, -width:],
            "src_lengths": inputs["src_lengths"][rows],
            "prev_output_tokens": prefixes[:, :length],
        },
        "target": targets[:, :length],
    }


@pytest.mark.parametrize("name", ["transformer", "transformer_shared", "lstm", "fconv"])
def test_same_perturbation_alone_in_a_batch_of_eight_and_in_another_order(name):
    model = toy_model(name).double()
    hook = EmbeddingHook(model, {"src": 1, "tgt": 1})
    batch = toy_batch((9, 7, 6, 5, 4, 3, 1, 0), (3, 9, 1, 4, 7, 2, 5, 0), seed=4)
    together = perturbations(model, hook, batch)
    others = [perturbations(model, hook, select(batch, [row])) for row in range(8)]
    others += [perturbations(model, hook, select(batch, rows)) for rows in ([1, 2, 5], [0, 3, 4, 6, 7])]
    for part in others:
        for sample_id, sides in part.items():
            for side, values in sides.items():
                torch.testing.assert_close(values, together[sample_id][side], rtol=1e-4, atol=1e-6)
