"""Perturbations found again by sample id, in whatever batch the sample is."""

from __future__ import annotations

import torch

from fairseq_adv.perturb import Perturbation
from fairseq_adv.perturb.carried import CarriedPerturbations

LENGTHS = {"src": {7: 2, 3: 4, 9: 1, 5: 3}, "tgt": {7: 3, 3: 1, 9: 2, 5: 2}}


def number_of(sample, side, token):
    return 100.0 * sample + 10.0 * token + (1.0 if side == "src" else 2.0)


def batch_of(samples, fill=number_of):
    """A batch of *samples*, as wide as its longest sentence; each coordinate tells sample, side and token."""
    values, masks = {}, {}
    for side, lengths in LENGTHS.items():
        width = max(lengths[sample] for sample in samples)
        values[side] = torch.zeros(len(samples), width, 2)
        masks[side] = torch.zeros(len(samples), width, dtype=torch.bool)
        for row, sample in enumerate(samples):
            for token in range(lengths[sample]):
                values[side][row, token] = fill(sample, side, token)
                masks[side][row, token] = True
    return torch.tensor(samples), Perturbation(values, masks)


def carried_of(*batches):
    carried = CarriedPerturbations()
    for samples in batches:
        carried.put(*batch_of(samples))
    return carried


def assert_taken(carried, samples, known):
    ids, expected = batch_of(samples, lambda s, side, t: number_of(s, side, t) if s in known else 0.0)
    taken, found = carried.take(ids, batch_of(samples, lambda *_: 0.0)[1])
    assert found == [sample in known for sample in samples]
    for side, values in expected.values.items():
        assert torch.equal(taken.values[side], values)
        assert torch.equal(taken.masks[side], expected.masks[side])


def test_same_batch_other_batch_and_strangers():
    carried = carried_of([7, 3], [9])
    for samples in ([7, 3], [3, 7], [9, 7, 3], [7], [9], [5, 9], [5]):
        assert_taken(carried, samples, known=(7, 3, 9))
    assert len(carried) == 3
    assert_taken(CarriedPerturbations(), [5, 7], known=())


def test_the_last_one_counts():
    carried = carried_of([7, 3])
    ids, zero = batch_of([3], lambda *_: 0.0)
    carried.put(ids, zero)
    assert_taken(carried, [7], known=(7,))
    assert carried.take(ids, zero)[0].values["src"].abs().sum() == 0


def test_states_of_several_ranks():
    states = [carried_of([7, 3], [9]).state_dict(), {}, carried_of([5]).state_dict()]
    assert all(tensor.device.type == "cpu" for state in states for tensor in state.values())
    assert states[0]["src"].shape == (2 + 4 + 1, 2)
    assert_taken(CarriedPerturbations.from_states(states), [9, 5, 3, 7], known=(3, 5, 7, 9))
    assert CarriedPerturbations().state_dict() == {} and len(CarriedPerturbations.from_states([{}])) == 0


def test_no_graph_is_kept():
    ids, delta = batch_of([7, 3])
    carried = CarriedPerturbations()
    carried.put(ids, delta.map(lambda values, _: values.clone().requires_grad_() * 2))
    assert not any(values.requires_grad for values in carried.tensors())
