"""Values and gradients of the fused loss against the unfused formula in double precision, by autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fairseq_adv.losses import LossTerms, Projected, fused, fused_loss

ROWS, DIM, WORDS = 11, 5, 17


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Chunks of four rows (the last one of three) and blocks of two (the last one of one)."""
    monkeypatch.setattr(fused, "_CHUNK", dict.fromkeys(("cpu", "cuda"), 4 * WORDS))
    monkeypatch.setattr(fused, "_BLOCK", dict.fromkeys(("cpu", "cuda"), 2 * WORDS))


class Case:
    """Features of two outputs, projections and reference words; the second output has its own projection if asked."""

    def __init__(self, bias=True, shared=True, dtype=torch.float64, distance=0.5):
        generator = torch.Generator().manual_seed(0)

        def leaf(*shape, scale=1.0):
            return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()

        self.x = leaf(ROWS, DIM)
        self.y = (self.x.detach() + distance * leaf(ROWS, DIM).detach()).requires_grad_()
        self.weight, self.bias = leaf(WORDS, DIM), leaf(WORDS) if bias else None
        self.other = self.weight if shared else leaf(WORDS, DIM)
        self.other_bias = self.bias if shared or not bias else leaf(WORDS)
        self.target = torch.randint(WORDS, (ROWS,), generator=generator)
        self.mask = torch.ones(ROWS, dtype=torch.bool)
        self.mask[[0, 7, 10]] = False

    @property
    def p(self):
        return Projected(self.x, self.weight, self.bias)

    @property
    def q(self):
        return Projected(self.y, self.other, self.other_bias)

    def fused(self, terms):
        pair = terms.divergence or terms.perturbed
        return fused_loss(self.p, self.q if pair else None, self.target, self.mask, terms)

    def leaves(self):
        every = (self.x, self.y, self.weight, self.bias, self.other, self.other_bias)
        return [leaf for n, leaf in enumerate(every) if leaf is not None and all(leaf is not o for o in every[:n])]


def slow_parts(case, terms):
    """Cross-entropies and divergence by their definitions, in double precision."""
    double: Any = [None if t is None else t.double() for t in (*case.p, *case.q)]
    outputs = [torch.log_softmax(F.linear(x, weight, bias), -1) for x, weight, bias in (double[:3], double[3:])]
    parts = []
    for log_probs in outputs:
        each = terms.smoothing / (WORDS - 1)
        truth = torch.full_like(log_probs, each).scatter(1, case.target[:, None], 1.0 - terms.smoothing)
        parts.append(-(truth * log_probs).sum(-1)[case.mask].sum())
    p, q = outputs[0].detach() if terms.detach_p else outputs[0], outputs[1]
    forward, backward = (p.exp() * (p - q)).sum(-1), (q.exp() * (q - p)).sum(-1)
    rows = forward if terms.kind == "kl" else 0.5 * (forward + backward)
    return [*parts, rows[case.mask].sum()], outputs


def slow_total(case, terms):
    (clean, perturbed, divergence), _ = slow_parts(case, terms)
    return terms.clean * clean + terms.perturbed * perturbed + terms.divergence * divergence


def gradients(total, leaves):
    return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)


EVERY_TERM = [
    LossTerms(clean=1.0, smoothing=0.1),
    LossTerms(clean=0.7),
    LossTerms(clean=1.0, divergence=2.0, kind="kl", smoothing=0.1),
    LossTerms(clean=1.0, divergence=1.0, kind="kl", detach_p=True, smoothing=0.1),
    LossTerms(divergence=1.5, kind="kl"),
    LossTerms(divergence=1.0, kind="sym-kl", detach_p=True),
    LossTerms(clean=0.5, perturbed=0.8, divergence=3.0, kind="sym-kl", smoothing=0.2),
    LossTerms(perturbed=1.0, divergence=1.0, kind="sym-kl", detach_p=True, smoothing=0.1),
    LossTerms(clean=1.0, perturbed=1.0, smoothing=0.1),
]


@pytest.mark.parametrize("terms", EVERY_TERM)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_every_gradient(terms, shared, bias):
    case = Case(bias, shared)
    mine, slow = case.fused(terms), slow_total(case, terms)
    torch.testing.assert_close(mine.total, slow, rtol=1e-12, atol=1e-12)
    scaled = 128.0 * mine.total / 3  # a loss scale and FreeLB's 1/K
    for ours, theirs in zip(gradients(scaled, case.leaves()), gradients(128.0 * slow / 3, case.leaves())):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("terms", EVERY_TERM)
def test_single_precision_is_exact_to_its_rounding(terms):
    case = Case(dtype=torch.float32)
    mine = gradients(case.fused(terms).total, case.leaves())
    for ours, theirs in zip(mine, gradients(slow_total(case, terms), case.leaves())):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def test_the_parts_that_are_logged():
    terms = LossTerms(1.0, 1.0, 1.0, "kl", smoothing=0.1, count_correct=True)
    case = Case()
    mine, (slow, outputs) = case.fused(terms), slow_parts(case, terms)
    for side, log_probs in enumerate(outputs):
        torch.testing.assert_close(mine.cross_entropy(side), slow[side])
        nll = -log_probs.gather(1, case.target[:, None])[case.mask].sum()
        torch.testing.assert_close(mine.nll(side), nll)
        assert mine.correct(side) == (log_probs.argmax(-1) == case.target)[case.mask].sum()
    torch.testing.assert_close(mine.divergence, slow[2])
    assert not mine.values.requires_grad and mine.correct(0).dtype == torch.int64


@pytest.mark.parametrize("kind", ["kl", "sym-kl"])
def test_equal_outputs_train_as_the_cross_entropy_alone_bit_for_bit(kind):
    case = Case(dtype=torch.float32, distance=0.0)
    alone = gradients(case.fused(LossTerms(clean=1.0, smoothing=0.1)).total, case.leaves())
    both = gradients(case.fused(LossTerms(clean=1.0, divergence=4.0, kind=kind, smoothing=0.1)).total, case.leaves())
    for one, other in zip(alone, both):
        assert torch.equal(one, other)
    assert both[1].abs().max() == 0.0


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("kind", ["kl", "sym-kl"])
def test_an_ascent_gets_the_gradient_towards_its_own_features_alone(hold, kind):
    case, terms = Case(), LossTerms(divergence=1.0, kind=kind, detach_p=True)
    p, q = case.p.detach(), case.q.with_fixed_projection()
    p = p.hold_logits() if hold else p
    for _ in range(2):  # what is held is not spent
        total = fused_loss(p, q, case.target, case.mask, terms).total
        ours = torch.autograd.grad(total, case.y)[0]
        torch.testing.assert_close(ours, gradients(slow_total(case, terms), [case.y])[0], rtol=1e-11, atol=1e-12)
    total = fused_loss(p, q, case.target, case.mask, terms).total
    assert gradients(total, [case.weight])[0].abs().max() == 0.0


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("distance", [0.5, 1e-2])
def test_half_precision_loses_no_more_than_its_rounding(dtype, precision, distance):
    terms = LossTerms(divergence=1e-3, detach_p=True, kind="sym-kl")  # would underflow in fp16 without a scale
    case = Case(dtype=dtype, distance=distance)
    double = Case(distance=distance)
    for mine, exact in zip(case.leaves(), double.leaves()):
        exact.data = mine.data.double()
    rounded_logits = 3 * precision / distance  # z_p − z_q is a difference of rounded numbers
    ours, theirs = (gradients(1e4 * total, c.leaves()) for c, total in _totals(case, double, terms))
    for one, other in zip(ours, theirs):
        assert one.dtype == dtype
        assert (one - other).norm() <= (precision + rounded_logits) * other.norm()


def _totals(case, double, terms):
    return (case, case.fused(terms).total), (double, slow_total(double, terms))


def test_gradients_that_fp16_cannot_hold_survive_their_scale():
    case = Case(dtype=torch.float16)
    wide = gradients(case.fused(LossTerms(clean=1.0)).total, case.leaves())
    tiny = gradients(case.fused(LossTerms(clean=2.0**-30)).total * 2.0**30, case.leaves())
    for one, other in zip(wide, tiny):
        torch.testing.assert_close(one, other, rtol=5e-3, atol=5e-3)


def test_inside_autocast_it_multiplies_in_the_dtype_of_a_linear_layer():
    case, terms = Case(dtype=torch.float32), LossTerms(clean=1.0, divergence=1.0, kind="kl", smoothing=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert case.p.dtype() == torch.bfloat16
        mine = case.fused(terms).total
        log_probs = [torch.log_softmax(F.linear(*o), -1, dtype=torch.float32) for o in (case.p, case.q)]
    assert mine.dtype == torch.float32
    clean = -(0.9 * log_probs[0].gather(1, case.target[:, None]).squeeze(1))
    each = 0.1 / (WORDS - 1)
    clean = clean - each * (log_probs[0].sum(-1) - log_probs[0].gather(1, case.target[:, None]).squeeze(1))
    divergence = (log_probs[0].exp() * (log_probs[0] - log_probs[1])).sum(-1)
    torch.testing.assert_close(mine, (clean + divergence)[case.mask].sum(), rtol=1e-5, atol=1e-5)
    for ours, leaf in zip(gradients(mine, case.leaves()), case.leaves()):
        assert ours.dtype == leaf.dtype == torch.float32


def test_one_pass_over_both_batches_is_cut_into_their_outputs():
    case, terms = Case(), LossTerms(clean=1.0, divergence=1.0, kind="kl", smoothing=0.1)
    together = Projected(torch.cat([case.x, case.y]), case.weight, case.bias).chunk(2)
    total = fused_loss(together[0], together[1], case.target, case.mask, terms).total
    for ours, theirs in zip(gradients(total, case.leaves()), gradients(slow_total(case, terms), case.leaves())):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_what_is_detached_goes_on_with_the_values_of_its_time():
    case = Case()
    frozen, before = case.p.detach(), case.p.detach().hold_logits().logits
    case.weight.data = torch.zeros_like(case.weight)
    assert torch.equal(frozen.hold_logits().logits, before)


def test_no_graph_is_made_where_none_is_wanted_and_none_is_used_twice():
    case, terms = Case(), LossTerms(clean=1.0)
    with torch.no_grad():
        assert not case.fused(terms).total.requires_grad
    total = case.fused(terms).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used up"):
        total.backward()


def test_an_unknown_divergence_is_refused():
    with pytest.raises(ValueError, match="unknown divergence 'js'"):
        Case().fused(LossTerms(divergence=1.0, kind="js"))


def test_logits_live_for_a_chunk_only():
    """No tensor as large as all logits is made, in the forward pass or in the backward pass."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if torch.is_tensor(result):
                self.numbers = max(self.numbers, result.numel())
            return result

    case = Case()
    with Largest() as largest:
        case.fused(LossTerms(clean=1.0, divergence=1.0, kind="kl")).total.backward()
    assert largest.numbers <= max(4 * WORDS, WORDS * DIM) < ROWS * WORDS
