"""LAMB, LARS and AdamW against slow references and against the implementations that people use."""

from __future__ import annotations

import copy
from typing import Any, Dict

import pytest
import torch

pytest.importorskip("fairseq")

from fairseq_adv.optim import AdamW, Lamb, Lars, foreach
from fairseq_adv.optim.param_groups import split_by_shape
from tests.unit.optim import references as ref

STEPS = 12
LAMB: Dict[str, Any] = {"lr": 0.02, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.05}
LARS: Dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.01, "trust_coefficient": 0.02, "eps": 1e-8}
ADAMW: Dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1}
LRS = [0.5 + 0.1 * step for step in range(STEPS)]
ALL = [(Lamb, LAMB), (Lars, {"lr": 0.5, **LARS}), (AdamW, ADAMW)]


@pytest.fixture(params=["fused", "foreach"])
def kernel(request, monkeypatch):
    """Both the fused kernel and what runs where this torch has none."""
    if request.param == "foreach":
        monkeypatch.setattr(foreach, "_fused_devices", {"cpu": False})
    elif not foreach.fused_supported(torch.device("cpu")):
        pytest.skip("this torch has no fused Adam on CPU")


@pytest.mark.parametrize("bounds", [{}, {"max_weight_norm": 2.0}, {"max_trust_ratio": 0.3}])
def test_lamb_is_algorithm_2(kernel, bounds):
    params = ref.random_params()
    expected = ref.slow_lamb(params, STEPS, **LAMB, **bounds)
    ref.assert_close(ref.run(Lamb(split_by_shape(params), **LAMB, **bounds), params, STEPS), expected, 1e-6)


def test_lamb_is_timms(kernel):
    ours, theirs = ref.random_params()[:2], ref.random_params()[:2]
    ref.run(ref.timm_lamb()(theirs, max_grad_norm=None, **LAMB), theirs, STEPS)
    ref.assert_close(ref.run(Lamb(ours, **LAMB), ours, STEPS), theirs, 1e-6)


def test_lamb_excluded_tensors_are_timms_without_decay(kernel):
    ours, theirs = ref.random_params(), ref.random_params()
    groups = [{"params": g["params"], "weight_decay": 0.05 * (not g["excluded"])} for g in split_by_shape(theirs)]
    ref.run(ref.timm_lamb()(groups, max_grad_norm=None, **LAMB), theirs, STEPS)
    ref.assert_close(ref.run(Lamb(split_by_shape(ours), **LAMB), ours, STEPS), theirs, 1e-6)


def test_lamb_is_pytorch_optimizers(kernel):
    theirs_class = pytest.importorskip("pytorch_optimizer").Lamb
    ours, theirs = ref.random_params()[:2], ref.random_params()[:2]
    ref.run(theirs_class(theirs, weight_decouple=False, adam_debias=True, **LAMB), theirs, STEPS)
    ours_optimizer = Lamb(ours, bias_correction=False, max_weight_norm=10.0, **LAMB)
    ref.assert_close(ref.run(ours_optimizer, ours, STEPS), theirs, 1e-6)


def test_lars_is_algorithm_1_with_the_rate_inside_the_momentum():
    params = ref.random_params()
    expected = ref.slow_lars(params, LRS, **LARS)
    ref.assert_close(ref.run(Lars(split_by_shape(params), **LARS), params, STEPS, lrs=LRS), expected, 1e-6)


def test_adamw_is_torchs(kernel):
    ours, theirs = ref.random_params(), ref.random_params()
    decayed = [{"params": g["params"], "weight_decay": 0.1 * (not g["excluded"])} for g in split_by_shape(theirs)]
    ref.run(torch.optim.AdamW(decayed, **ADAMW), theirs, STEPS)
    ref.assert_close(ref.run(AdamW(split_by_shape(ours), **ADAMW), ours, STEPS), theirs, 1e-6)


@pytest.mark.parametrize(("optimizer", "options"), ALL)
def test_chunks_change_nothing(optimizer, options, monkeypatch):
    whole, pieces = ref.random_params(), ref.random_params()
    ref.run(optimizer(split_by_shape(whole), **options), whole, 3)
    monkeypatch.setattr(foreach, "_CHUNK_CPU", 100)
    ref.run(optimizer(split_by_shape(pieces), **options), pieces, 3)
    ref.assert_close(pieces, whole, 0.0)


@pytest.mark.parametrize(("optimizer", "options"), ALL)
def test_zero_weights_and_zero_gradients_stay_finite(optimizer, options):
    params = [torch.nn.Parameter(torch.zeros(4, 4)), torch.nn.Parameter(torch.ones(4, 4))]
    params[0].grad, params[1].grad = torch.ones(4, 4), torch.zeros(4, 4)
    optimizer(params, **options).step()
    assert all(torch.isfinite(p).all() for p in params)
    assert (params[0] < 0).all()  # ratio 1 where the norm of the weights is 0


@pytest.mark.parametrize(("optimizer", "options"), ALL)
def test_parameters_without_gradient_keep_value_and_step_count(optimizer, options):
    params = ref.random_params()
    before = params[1].detach().clone()
    params[0].grad = torch.ones_like(params[0])
    instance = optimizer(split_by_shape(params), **options)
    instance.step()
    assert torch.equal(params[1], before) and params[1] not in instance.state
    assert instance.state[params[0]]["step"] == 1


@pytest.mark.parametrize(("optimizer", "options"), ALL)
def test_layout_of_weights_and_gradients_does_not_matter(optimizer, options):
    plain = torch.nn.Parameter(torch.randn(8, 6))
    strided = torch.nn.Parameter(plain.detach().t().contiguous().t())
    grad = torch.randn(8, 6)
    plain.grad, strided.grad = grad.clone(), grad.t().contiguous().t()
    optimizer([plain], **options).step()
    optimizer([strided], **options).step()
    assert not strided.is_contiguous()
    ref.assert_close([strided], [plain], 1e-7)


def test_sparse_gradients_are_refused():
    param = torch.nn.Parameter(torch.randn(3, 2))
    param.grad = torch.randn(3, 2).to_sparse()
    with pytest.raises(ValueError, match="dense gradients"):
        Lamb([param]).step()


def test_closure_sees_gradients_enabled():
    param = torch.nn.Parameter(torch.ones(2, 2))

    def closure():
        loss = (param * param).sum()
        loss.backward()
        return loss

    assert float(AdamW([param]).step(closure) or 0.0) == 4.0


@pytest.mark.parametrize(("optimizer", "options"), ALL)
def test_a_copied_optimizer_still_steps(optimizer, options):
    param = torch.nn.Parameter(torch.ones(2, 2))
    param.grad = torch.ones(2, 2)
    instance = copy.deepcopy(optimizer([param], **options))
    instance.param_groups[0]["params"][0].grad = torch.ones(2, 2)
    instance.step()
    assert (instance.param_groups[0]["params"][0] != 1).all()


def test_norm_of_an_embedding_matrix_keeps_its_digits():
    matrix = torch.randn(8000, 512, generator=torch.Generator().manual_seed(1))
    odd = matrix[:7999, :511].contiguous()
    got = foreach.norms([matrix, odd])
    expected = torch.stack([matrix.double().norm(), odd.double().norm()])
    assert torch.allclose(got.double(), expected, rtol=1e-6)
