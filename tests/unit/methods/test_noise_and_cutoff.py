"""Noise and cutoffs that need no gradient: sizes, rates, padding, and that they belong to the sample."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fairseq_adv.methods.r3f import noise_perturbation
from fairseq_adv.methods.simcut import kept_tokens


def passes_of(ids, lengths, width=30, dim=16):
    mask = torch.arange(width).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
    masks = {"src": mask, "tgt": mask}
    return SimpleNamespace(ids=torch.tensor(ids), masks=masks, dims={"src": dim, "tgt": dim})


@pytest.mark.parametrize(("distribution", "deviation"), [("normal", 0.5), ("uniform", 0.5 / 3**0.5)])
def test_size_of_the_noise(distribution, deviation):
    delta = noise_perturbation(passes_of(range(40), [30] * 40), distribution, 0.5, seed=1, stream=1)
    for values in delta.values.values():
        assert values.std().item() == pytest.approx(deviation, rel=0.03)
        assert values.mean().item() == pytest.approx(0.0, abs=0.02)
    assert not torch.equal(delta.values["src"], delta.values["tgt"])


def test_padding_has_no_noise_and_a_sample_keeps_its_own():
    delta = noise_perturbation(passes_of([7, 8], [3, 5]), "normal", 1.0, seed=1, stream=2)
    assert delta.values["src"][0, 3:].abs().sum() == 0 and (delta.values["src"][0, :3] != 0).all()
    alone = noise_perturbation(passes_of([8], [5]), "normal", 1.0, seed=1, stream=2)
    assert torch.equal(alone.values["tgt"][0], delta.values["tgt"][1])


@pytest.mark.parametrize("p", [0.0, 0.05, 0.3])
def test_rate_of_the_cutoff(p):
    keep = kept_tokens(passes_of(range(400), [30] * 400), p, seed=1, stream=1)
    for mask in keep.values():
        assert 1 - mask.float().mean().item() == pytest.approx(p, abs=0.01)
    if p == 0.0:
        assert keep["src"].all()


def test_cutoffs_differ_by_epoch_and_side_and_belong_to_the_sample():
    batch = passes_of([1, 2, 3], [30] * 3)
    first, second = (kept_tokens(batch, 0.4, seed=1, stream=epoch) for epoch in (1, 2))
    assert not torch.equal(first["src"], second["src"]) and not torch.equal(first["src"], first["tgt"])
    assert torch.equal(kept_tokens(passes_of([3], [30]), 0.4, seed=1, stream=1)["src"][0], first["src"][2])
