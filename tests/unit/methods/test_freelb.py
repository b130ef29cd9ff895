"""What a backward pass leaves on a perturbation: gradients, broken sentences, and nothing."""

from __future__ import annotations

import torch

from fairseq_adv.methods.freelb import gradient_left_on, leaf_of
from fairseq_adv.perturb import Perturbation


def two_sides():
    mask = torch.ones(3, 2, dtype=torch.bool)
    return Perturbation({"src": torch.zeros(3, 2, 4), "tgt": torch.ones(3, 2, 4)}, {"src": mask, "tgt": mask})


def test_gradient_of_each_side():
    leaf = leaf_of(two_sides())
    (2 * leaf.values["src"].sum() - leaf.values["tgt"].square().sum()).backward()
    gradient, broken = gradient_left_on(leaf)
    assert not broken.any()
    assert torch.equal(gradient.values["src"], torch.full((3, 2, 4), 2.0))
    assert torch.equal(gradient.values["tgt"], torch.full((3, 2, 4), -2.0))


def test_a_broken_sentence_has_no_gradient_on_either_side():
    leaf = leaf_of(two_sides())
    weight = torch.tensor([1.0, float("nan"), 1.0]).view(3, 1, 1)
    (leaf.values["src"].sum() + (weight * leaf.values["tgt"]).sum()).backward()
    gradient, broken = gradient_left_on(leaf)
    assert broken.tolist() == [False, True, False]
    for side in ("src", "tgt"):
        assert gradient.values[side].abs().sum(dim=(1, 2)).tolist() == [8.0, 0.0, 8.0]


def test_leaves_are_copies_of_their_own_graph():
    delta = two_sides()
    leaf = leaf_of(delta)
    leaf.values["src"].data.add_(1.0)
    assert delta.values["src"].abs().sum() == 0 and not delta.values["src"].requires_grad


def test_a_side_that_the_loss_does_not_depend_on_has_no_gradient():
    """As where LayerDrop leaves out every layer that looks at the source."""
    leaf = leaf_of(two_sides())
    leaf.values["tgt"].sum().backward()
    gradient, broken = gradient_left_on(leaf)
    assert gradient.values["src"].abs().sum() == 0 < gradient.values["tgt"].abs().sum() and not broken.any()
