"""The counter-based generator against arithmetic on Python integers, and its independence of the batch."""

import pytest
import torch

from fairseq_adv.perturb.balls import Ball
from fairseq_adv.perturb.noise import initial_perturbation, sample_noise

BITS = (1 << 64) - 1


def slow_hash(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
    return z ^ (z >> 31)


def slow_uniform(sample_id, k, d, dim, seed, stream, side):
    key = sample_id
    for word in (seed, stream, side):
        key = slow_hash((key * 0x9E3779B97F4A7C15 + word * 0xD1342543DE82EF95 + 1) & BITS)
    z = (key + (k * dim + d + 1) * 0x9E3779B97F4A7C15) & BITS
    return 2 * ((slow_hash(z) >> 40) + 0.5) * 2.0**-24 - 1


def test_uniform_noise_equals_the_generator_in_python_integers():
    ids = torch.tensor([0, 5, 4_000_000_000])
    noise = sample_noise("uniform", ids, length=2, dim=3, seed=7, stream=2, side="tgt")
    for b, sample_id in enumerate(ids.tolist()):
        for k in range(2):
            for d in range(3):
                assert noise[b, k, d].item() == pytest.approx(slow_uniform(sample_id, k, d, 3, 7, 2, 2), abs=1e-6)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_a_sample_gets_the_same_noise_in_any_batch(distribution):
    together = sample_noise(distribution, torch.arange(10), 6, 4, seed=1, stream=1, side="src")
    alone = sample_noise(distribution, torch.tensor([7]), 9, 4, seed=1, stream=1, side="src")
    assert torch.equal(together[7], alone[0, :6])


def test_seed_stream_and_side_change_the_noise():
    settings = [(1, 1, "src"), (2, 1, "src"), (1, 2, "src"), (1, 1, "tgt"), (2, 1, "tgt")]
    draws = [sample_noise("uniform", torch.tensor([3]), 4, 4, *s).flatten() for s in settings]
    for i in range(len(draws)):
        for j in range(i):
            assert (draws[i] - draws[j]).abs().min() > 0


@pytest.mark.parametrize(("distribution", "variance", "fourth"), [("uniform", 1 / 3, 1 / 5), ("normal", 1.0, 3.0)])
def test_moments_and_correlations(distribution, variance, fourth):
    noise = sample_noise(distribution, torch.arange(400), 20, 32, seed=1, stream=1, side="src").double()
    assert noise.mean().abs() < 5 * (variance / noise.numel()) ** 0.5
    assert noise.square().mean().item() == pytest.approx(variance, rel=0.02)
    assert noise.pow(4).mean().item() == pytest.approx(fourth, rel=0.05)
    for shifted in (noise[1:] * noise[:-1], noise[:, 1:] * noise[:, :-1], noise[..., 1:] * noise[..., :-1]):
        assert shifted.mean().abs() < 5 * variance / shifted.numel() ** 0.5


def test_torch_generators_are_not_touched():
    before = torch.get_rng_state()
    sample_noise("normal", torch.arange(3), 4, 4, 1, 1, "src")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("norm", "level"), [("l2", "sentence"), ("l2", "word"), ("linf", "sentence"), ("linf", "word")]
)
def test_start_has_the_radius_as_norm_and_nothing_on_padding(norm, level):
    mask = torch.tensor([[True, True, False], [True, False, False]])
    ball = Ball(0.1, norm, level)
    start = initial_perturbation("uniform", torch.tensor([1, 2]), {"src": mask}, {"src": 8}, ball, 0.5, 1, 1)
    values = start.values["src"]
    assert values.masked_select(~mask.unsqueeze(-1)).abs().sum() == 0
    norms = ball.norms(values, mask)
    real = norms if level == "sentence" else norms[mask]
    torch.testing.assert_close(real, torch.full_like(real, 0.05))


def test_unknown_distribution_is_named():
    with pytest.raises(ValueError, match="cauchy"):
        sample_noise("cauchy", torch.tensor([1]), 1, 1, 1, 1, "src")
