"""Divergences and their closed-form gradients against plain autograd in double precision."""

import pytest
import torch

from fairseq_adv.losses import masked_divergence, token_divergence


def slow_divergence(z_p, z_q, kind):
    """From logits, by the definition, differentiable by autograd."""
    p, q = torch.softmax(z_p, -1), torch.softmax(z_q, -1)
    forward = (p * (p.log() - q.log())).sum(-1)
    backward = (q * (q.log() - p.log())).sum(-1)
    return forward if kind == "kl" else 0.5 * (forward + backward)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 9, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("kind", ["kl", "sym-kl"])
def test_value_and_both_gradients(logits, kind):
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    ours = token_divergence(torch.log_softmax(logits[0], -1), torch.log_softmax(logits[1], -1), kind)
    slow = slow_divergence(logits[0], logits[1], kind)
    torch.testing.assert_close(ours, slow)
    for mine, reference in zip(
        torch.autograd.grad((ours * weights).sum(), logits), torch.autograd.grad((slow * weights).sum(), logits)
    ):
        torch.testing.assert_close(mine, reference)


def test_kl_is_not_symmetric_and_p_comes_first():
    p, q = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    expected = 0.9 * torch.tensor(0.9 / 0.5).log() + 0.1 * torch.tensor(0.1 / 0.5).log()
    assert token_divergence(p, q, "kl").item() == pytest.approx(expected.item(), rel=1e-6)
    assert token_divergence(q, p, "kl").item() != pytest.approx(expected.item(), rel=1e-2)


@pytest.mark.parametrize("kind", ["kl", "sym-kl"])
def test_equal_outputs_have_exactly_zero_value_and_gradient(kind):
    z = (torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)) * 5).requires_grad_()
    z_same = z.detach().clone().requires_grad_()
    value = token_divergence(torch.log_softmax(z, -1), torch.log_softmax(z_same, -1), kind).sum()
    assert value.item() == 0.0
    assert all(gradient.abs().max() == 0.0 for gradient in torch.autograd.grad(value, (z, z_same)))


def test_mask_leaves_rows_out_and_detach_stops_the_clean_gradient(logits):
    mask = torch.tensor([True, False, True, True, False, True])
    log_p, log_q = (torch.log_softmax(z, -1) for z in logits)
    value = masked_divergence(log_p, log_q, mask, "kl", detach_p=True)
    torch.testing.assert_close(value, slow_divergence(logits[0], logits[1], "kl")[mask].sum())
    value.backward()
    assert logits[0].grad is None
    assert logits[1].grad[~mask].abs().sum() == 0 and logits[1].grad[mask].abs().sum() > 0


def test_half_precision_is_computed_in_fp32():
    log_p = torch.log_softmax(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), -1).half()
    log_q = torch.log_softmax(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)), -1).half()
    assert token_divergence(log_p, log_q, "kl").dtype == torch.float32


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'js'"):
        token_divergence(torch.zeros(1, 2), torch.zeros(1, 2), "js")
