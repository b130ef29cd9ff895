"""The ascent: gradients against finite differences, steps against a slow reference, failures of one sentence."""

import pytest
import torch

from fairseq_adv.losses import masked_divergence
from fairseq_adv.perturb import Ball, EmbeddingHook, Perturbation, projected_gradient_ascent, real_token_mask
from fairseq_adv.perturb.ascent import perturbation_gradient
from tests.unit.toy_models import toy_batch, toy_model

PADS = {"src": 1, "tgt": 1}


def divergence_of(name, kind):
    """A model in double precision, its batch, and ℓ_v as a function of δ."""
    model, batch = toy_model(name).double(), toy_batch()
    inputs = batch["net_input"]
    hook = EmbeddingHook(model, PADS)
    mask = batch["target"].ne(1).view(-1)

    def log_probs():
        return torch.log_softmax(model(**inputs)[0], dim=-1).flatten(0, 1)

    with torch.no_grad():
        clean = log_probs()

    def objective(delta):
        with hook.adding(delta):
            return masked_divergence(clean, log_probs(), mask, kind)

    masks = {"src": real_token_mask(inputs["src_tokens"], 1), "tgt": real_token_mask(inputs["prev_output_tokens"], 1)}
    generator = torch.Generator().manual_seed(0)
    values = {s: 0.1 * torch.randn(*m.shape, 16, generator=generator) * m.unsqueeze(-1) for s, m in masks.items()}
    return objective, Perturbation(values, masks)


@pytest.mark.parametrize("name", ["transformer", "transformer_shared", "lstm"])
@pytest.mark.parametrize("kind", ["kl", "sym-kl"])
def test_gradient_agrees_with_central_differences(name, kind):
    objective, delta = divergence_of(name, kind)
    gradient = perturbation_gradient(objective, delta)
    step, generator = 1e-3, torch.Generator().manual_seed(1)
    for side, values in delta.values.items():
        for _ in range(12):
            b = int(torch.randint(values.size(0), (1,), generator=generator))
            k = int(torch.randint(int(delta.masks[side][b].sum()), (1,), generator=generator))
            d = int(torch.randint(16, (1,), generator=generator))
            moved = []
            for sign in (1, -1):
                shifted = values.double().clone()
                shifted[b, k, d] += sign * step
                with torch.no_grad():
                    moved.append(objective(Perturbation({**delta.values, side: shifted}, delta.masks)).item())
            expected = (moved[0] - moved[1]) / (2 * step)
            assert gradient.values[side][b, k, d].item() == pytest.approx(
                expected, rel=2e-3, abs=1e-5
            )  # attention is fp32


def test_ascent_leaves_no_gradient_on_parameters_and_increases_the_divergence():
    objective, delta = divergence_of("transformer", "sym-kl")
    model_gradients = []

    def watched(candidate):
        value = objective(candidate)
        model_gradients.append(value.requires_grad)
        return value

    ball = Ball(0.5)
    start = delta.map(lambda values, mask: ball.scaled_to(values, mask, 0.5))
    best, broken = projected_gradient_ascent(watched, start, ball, steps=3, step_size=0.3)
    assert len(model_gradients) == 3 and not broken.any()
    assert objective(best) > objective(start)
    assert all(not values.requires_grad for values in best.values.values())


def slow_ascent(gradient_of, start, epsilon, steps, eta):
    """Lists of Python floats, one sentence, ℓ2."""
    delta = list(start)
    for _ in range(steps):
        gradient = gradient_of(delta)
        norm = sum(g * g for g in gradient) ** 0.5
        delta = [x + eta * g / norm for x, g in zip(delta, gradient)]
        size = sum(x * x for x in delta) ** 0.5
        if size > epsilon:
            delta = [x * epsilon / size for x in delta]
    return delta


def test_steps_equal_a_slow_reference_on_a_quadratic():
    target = torch.tensor([[[1.0, -2.0], [0.5, 3.0]], [[0.2, 0.1], [0.0, 0.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    start = Perturbation({"src": torch.tensor([[[0.1, 0.0], [0.0, 0.1]], [[-0.1, 0.05], [0.0, 0.0]]])}, {"src": mask})

    def objective(delta):
        return -(delta.values["src"] - target).square().masked_fill(~mask.unsqueeze(-1), 0.0).sum()

    result, _ = projected_gradient_ascent(objective, start, Ball(0.7), steps=4, step_size=0.25)
    for b, length in enumerate((2, 1)):
        goal = target[b, :length].flatten().tolist()
        expected = slow_ascent(
            lambda x, goal=goal: [-2 * (a - g) for a, g in zip(x, goal)],
            start.values["src"][b, :length].flatten().tolist(),
            0.7,
            4,
            0.25,
        )
        assert result.values["src"][b, :length].flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert result.values["src"][1, 1].abs().sum() == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sentence_with_a_broken_gradient_gets_zero_and_the_others_are_untouched(bad):
    mask = torch.ones(3, 2, dtype=torch.bool)
    values = torch.full((3, 2, 2), 0.1)
    start = Perturbation({"src": values, "tgt": values.clone()}, {"src": mask, "tgt": mask})

    def objective(delta, poison=0.0):
        weight = torch.tensor([1.0, poison, 1.0]) if poison else torch.ones(3)
        loss = delta.values["src"].square().sum(dim=(1, 2)) + delta.values["tgt"].pow(3).sum(dim=(1, 2))
        return (loss * weight).sum()

    fine, none_broken = projected_gradient_ascent(objective, start, Ball(1.0), 2, 0.2)
    result, broken = projected_gradient_ascent(lambda d: objective(d, bad), start, Ball(1.0), 2, 0.2)
    assert not none_broken.any() and broken.tolist() == [False, True, False]
    for side in ("src", "tgt"):
        assert result.values[side][1].abs().sum() == 0
        assert torch.equal(result.values[side][[0, 2]], fine.values[side][[0, 2]])


def test_zero_steps_return_the_start():
    mask = torch.ones(1, 2, dtype=torch.bool)
    start = Perturbation({"src": torch.ones(1, 2, 2) * 0.01}, {"src": mask})
    result, _ = projected_gradient_ascent(lambda d: d.values["src"].sum(), start, Ball(1.0), 0, 0.1)
    assert torch.equal(result.values["src"], start.values["src"])


def test_a_side_that_the_objective_does_not_depend_on_has_no_gradient():
    mask = torch.ones(2, 3, dtype=torch.bool)
    delta = Perturbation({side: torch.ones(2, 3, 4) for side in ("src", "tgt")}, {"src": mask, "tgt": mask})
    gradient = perturbation_gradient(lambda leaves: leaves.values["tgt"].square().sum(), delta)
    assert gradient.values["src"].abs().sum() == 0 and (gradient.values["tgt"] == 2).all()
