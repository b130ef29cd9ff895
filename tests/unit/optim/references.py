"""Slow, obvious versions of the update rules in float64, written from the papers, and their peers."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch


def random_params(seed=0, dtype=torch.float32):
    """A few matrices, a bias and a scalar, of the scale of a trained model's."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(40, 64), (7, 3), (64,), (5, 6, 3), ()]
    return [torch.nn.Parameter((0.3 * torch.randn(s, generator=generator)).to(dtype)) for s in shapes]


def random_grads(params, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    return [(0.01 * torch.randn(p.shape, generator=generator)).to(p.dtype) for p in params]


def run(optimizer, params, steps, lrs=None, first=0):
    """``steps`` updates on the gradients of steps first, first + 1, …; returns ``params``."""
    for step in range(first, first + steps):
        for param, grad in zip(params, random_grads(params, step)):
            param.grad = grad
        for group in optimizer.param_groups:
            group["lr"] = lrs[step] if lrs else group["lr"]
        optimizer.step()
    return params


def double(params):
    return [p.detach().double() for p in params]


def adam_direction(moments, grad, step, betas, eps):
    """m̂ / (√v̂ + eps) with the moments in ``moments`` = [m, v] updated."""
    moments[0] = betas[0] * moments[0] + (1 - betas[0]) * grad
    moments[1] = betas[1] * moments[1] + (1 - betas[1]) * grad * grad
    m_hat = moments[0] / (1 - betas[0] ** step)
    v_hat = moments[1] / (1 - betas[1] ** step)
    return m_hat / (v_hat.sqrt() + eps)


def slow_lamb(params, steps, lr, betas, eps, weight_decay, max_weight_norm=0.0, max_trust_ratio=0.0):
    weights = double(params)
    moments = [[torch.zeros_like(w), torch.zeros_like(w)] for w in weights]
    for step in range(1, steps + 1):
        for i, grad in enumerate(random_grads(params, step - 1)):
            u = adam_direction(moments[i], grad.double(), step, betas, eps)
            ratio = 1.0
            if weights[i].dim() >= 2:
                u = u + weight_decay * weights[i]
                x_norm, u_norm = weights[i].pow(2).sum().sqrt().item(), u.pow(2).sum().sqrt().item()
                phi = min(x_norm, max_weight_norm) if max_weight_norm else x_norm
                ratio = phi / u_norm if x_norm > 0 and u_norm > 0 else 1.0
                ratio = min(ratio, max_trust_ratio) if max_trust_ratio else ratio
            weights[i] = weights[i] - lr * ratio * u
    return weights


def slow_lars(params, lrs, momentum, weight_decay, trust_coefficient, eps):
    weights = double(params)
    buffers = [torch.zeros_like(w) for w in weights]
    for step, lr in enumerate(lrs):
        for i, grad in enumerate(random_grads(params, step)):
            w, g = weights[i], grad.double()
            rate = 1.0
            if w.dim() >= 2:
                w_norm, g_norm = w.pow(2).sum().sqrt().item(), g.pow(2).sum().sqrt().item()
                if w_norm > 0 and g_norm > 0:
                    rate = trust_coefficient * w_norm / (g_norm + weight_decay * w_norm + eps)
                g = g + weight_decay * w
            buffers[i] = momentum * buffers[i] + lr * rate * g
            weights[i] = w - buffers[i]
    return weights


def timm_lamb():
    """timm's ``Lamb`` without timm's own imports, which want torchvision; skips the test if absent."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("timm is not installed")
    package = types.ModuleType("timm_optim_only")
    package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "optim")]
    sys.modules.setdefault("timm_optim_only", package)
    return importlib.import_module("timm_optim_only.lamb").Lamb


def assert_close(got, expected, tolerance):
    for index, (a, b) in enumerate(zip(got, expected)):
        difference = (a.detach().double() - b.detach().double()).abs().max().item()
        assert difference <= tolerance, f"tensor {index} of shape {tuple(a.shape)}: off by {difference:.3g}"
