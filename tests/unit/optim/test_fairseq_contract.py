"""What fairseq expects of an optimizer: options, groups, saved state, half precision, clear refusals."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("fairseq")

from fairseq import optim
from fairseq.dataclass.configs import FairseqConfig
from fairseq.registry import REGISTRIES
from omegaconf import OmegaConf, open_dict

import fairseq_adv.optim  # noqa: F401  (registers)
from tests.unit.optim import references as ref

NAMES = ["adv_lamb", "adv_lars", "adv_adamw"]
DECAY = {"adv_lamb": "lamb_weight_decay", "adv_lars": "lars_weight_decay", "adv_adamw": "adamw_weight_decay"}


def config(name, fp16=False, no_flatten=False, **options):
    """fairseq's root config with this optimizer, as ``fairseq-train`` would build it."""
    cfg = OmegaConf.structured(FairseqConfig())
    with open_dict(cfg):
        node = REGISTRIES["optimizer"]["dataclass_registry"][name]()
        node._name = name
        cfg.optimizer = OmegaConf.merge(OmegaConf.structured(node), options)
        cfg.optimization.lr = [0.1]
        cfg.common.fp16, cfg.common.fp16_no_flatten_grads = fp16, no_flatten
        cfg.common.fp16_init_scale = 4
    return cfg


def build(name, params, **options):
    return optim.build_optimizer(config(name, **options).optimizer, params)


@pytest.mark.parametrize("name", NAMES)
def test_lr_comes_from_fairseqs_option_and_groups_split_by_shape(name):
    params = ref.random_params()
    built = build(name, params, **{DECAY[name]: 0.25})
    assert built.get_lr() == 0.1
    matrices, vectors = built.param_groups
    assert [p.ndim > 1 for p in matrices["params"]] == [True] * 3 and not matrices["excluded"]
    assert [p.ndim <= 1 for p in vectors["params"]] == [True] * 2 and vectors["excluded"]
    assert {id(p) for p in built.params} == {id(p) for p in params}


@pytest.mark.parametrize("name", NAMES)
def test_decay_shrinks_matrices_and_never_biases(name):
    results = []
    for decay in (0.0, 0.5):
        params = ref.random_params()
        ref.run(build(name, params, **{DECAY[name]: decay}), params, 3)
        results.append(params)
    for without, with_decay in zip(*results):
        assert torch.equal(without, with_decay) == (without.ndim <= 1)


@pytest.mark.parametrize("name", NAMES)
def test_overrides_at_resume_do_not_decay_biases(name):
    plain, overridden = ref.random_params(), ref.random_params()
    first, second = build(name, plain), build(name, overridden)
    second.load_state_dict(first.state_dict(), optimizer_overrides={"weight_decay": 0.5})
    assert second.param_groups[0]["weight_decay"] == 0.5
    ref.run(first, plain, 3)
    ref.run(second, overridden, 3)
    assert torch.equal(plain[2], overridden[2]) and not torch.equal(plain[0], overridden[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_resume_gives_the_same_parameters_bit_for_bit(name, dtype, tmp_path):
    straight = ref.random_params(dtype=dtype)
    ref.run(build(name, straight), straight, 8)

    params = ref.random_params(dtype=dtype)
    stopped = build(name, params)
    ref.run(stopped, params, 5)
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    resumed = build(name, params)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    ref.run(resumed, params, 3, first=5)
    assert all(torch.equal(a, b) for a, b in zip(params, straight))
    tensors = [v for s in resumed.optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    assert tensors and all(t.dtype == torch.float32 for t in tensors)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_the_fp32_step_rounded(name):
    half = ref.random_params(dtype=torch.float16)
    full = [torch.nn.Parameter(p.detach().float()) for p in half]
    for param, grad in zip(half, ref.random_grads(half, 0)):
        param.grad = grad
    for param, twin in zip(half, full):
        twin.grad = param.grad.float()
    build(name, half).step()
    build(name, full).step()
    assert all(torch.equal(h, f.half()) for h, f in zip(half, full))


@pytest.mark.parametrize("name", NAMES)
def test_memory_efficient_fp16_scales_saves_and_restores(name):
    def wrapped(params):
        return optim.MemoryEfficientFP16Optimizer.build_optimizer(config(name, fp16=True), params)

    def train(optimizer, params, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            optimizer.backward(sum((p.float() ** 2).sum() for p in params).float())
            optimizer.clip_grad_norm(1.0)
            optimizer.step()

    straight, params = ref.random_params(dtype=torch.float16), ref.random_params(dtype=torch.float16)
    train(wrapped(straight), straight, 6)
    stopped = wrapped(params)
    train(stopped, params, 4)
    resumed = wrapped(params)
    resumed.load_state_dict(stopped.state_dict())
    train(resumed, params, 2)
    assert all(torch.equal(a, b) for a, b in zip(params, straight))
    assert not torch.equal(params[0], ref.random_params(dtype=torch.float16)[0])


@pytest.mark.parametrize("name", ["adv_lamb", "adv_lars", "adv_adamw"])
def test_fp16_without_flattening_works_on_separate_fp32_copies(name):
    params = ref.random_params(dtype=torch.float16)
    built = optim.FP16Optimizer.build_optimizer(config(name, fp16=True, no_flatten=True), params)
    built.zero_grad()
    built.backward(sum((p.float() ** 2).sum() for p in params))
    built.clip_grad_norm(1.0)
    built.step()
    twins = [torch.nn.Parameter(p.detach().float()) for p in ref.random_params(dtype=torch.float16)]
    plain = build(name, twins)
    plain.backward(sum((p**2).sum() for p in twins))
    plain.clip_grad_norm(1.0)
    plain.step()
    ref.assert_close(params, twins, 2e-3)


def fp16_steps(optimizer, params, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        optimizer.backward(sum((p.float() ** 2).sum() for p in params))
        optimizer.clip_grad_norm(1.0)
        optimizer.step()


def resumed_fp16(name, params, state, flat):
    """The optimizer that fairseq builds from the saved half-precision ``params``, with its state loaded."""
    built = optim.FP16Optimizer.build_optimizer(config(name, fp16=True, no_flatten=not flat), params)
    built.load_state_dict(state)
    return built


@pytest.mark.parametrize(("name", "flat"), [*((name, False) for name in NAMES), ("adv_adamw", True)])
def test_fp32_copies_survive_a_resume_unrounded(name, flat, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)  # the key of the flat vector on CPU
    straight, params = ref.random_params(dtype=torch.float16), ref.random_params(dtype=torch.float16)
    build_fp16 = optim.FP16Optimizer.build_optimizer
    fp16_steps(build_fp16(config(name, fp16=True, no_flatten=not flat), straight), straight, 9)

    stopped = build_fp16(config(name, fp16=True, no_flatten=not flat), params)
    fp16_steps(stopped, params, 5)
    resumed = resumed_fp16(name, params, copy.deepcopy(stopped.state_dict()), flat)
    assert all(torch.equal(a, b) for a, b in zip(resumed.fp32_optimizer.params, stopped.fp32_optimizer.params))
    assert any(not torch.equal(p, p.half().float()) for p in resumed.fp32_optimizer.params)
    fp16_steps(resumed, params, 4)
    assert all(torch.equal(a, b) for a, b in zip(params, straight))


def test_weights_changed_since_the_save_win_over_the_saved_copies():
    params = ref.random_params(dtype=torch.float16)
    stopped = optim.FP16Optimizer.build_optimizer(config("adv_lamb", fp16=True, no_flatten=True), params)
    fp16_steps(stopped, params, 3)
    state = copy.deepcopy(stopped.state_dict())
    params[0].data.mul_(2)
    resumed = resumed_fp16("adv_lamb", params, state, flat=False)
    nonzero = params[0] != 0
    assert torch.equal(next(iter(resumed.fp32_optimizer.params))[nonzero], params[0].float()[nonzero])


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_not_saved_twice_without_fp32_copies(name):
    params = ref.random_params()
    built = build(name, params)
    ref.run(built, params, 1)
    assert all("fp32_weight" not in state for state in built.state_dict()["state"].values())


@pytest.mark.parametrize(("name", "decay"), [("adv_lamb", 0.0), ("adv_lars", 0.0), ("adv_adamw", 0.1)])
def test_flat_fp16_is_refused_with_the_option_to_set(name, decay, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)  # only names the flat vector's slot
    with pytest.raises(RuntimeError, match="--fp16-no-flatten-grads"):
        params = ref.random_params(dtype=torch.float16)
        optim.FP16Optimizer.build_optimizer(config(name, fp16=True, **{DECAY[name]: decay}), params)


def test_adamw_without_decay_accepts_flat_fp16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    params = ref.random_params(dtype=torch.float16)
    assert optim.FP16Optimizer.build_optimizer(config("adv_adamw", fp16=True), params).has_flat_params


@pytest.mark.parametrize("name", NAMES)
def test_multiply_grads_scales_the_gradient_as_fairseq_means_it(name):
    scaled, plain = ref.random_params(), ref.random_params()
    first, second = build(name, scaled), build(name, plain)
    for param, twin, grad in zip(scaled, plain, ref.random_grads(scaled, 0)):
        param.grad, twin.grad = 8 * grad, grad
    first.multiply_grads(0.125)
    first.step()
    second.step()
    assert all(torch.equal(a, b) for a, b in zip(scaled, plain))


@pytest.mark.parametrize(
    ("name", "option", "value", "complaint"),
    [
        ("adv_lamb", "lamb_betas", "0.9", "--lamb-betas must be two numbers"),
        ("adv_lamb", "lamb_betas", "(0.9, 1.0)", r"--lamb-betas must lie in \[0, 1\)"),
        ("adv_lamb", "lamb_eps", -1.0, "--lamb-eps must be >= 0, got -1.0"),
        ("adv_lamb", "lamb_weight_decay", -0.1, "--lamb-weight-decay"),
        ("adv_lars", "lars_momentum", 1.0, "--lars-momentum"),
        ("adv_lars", "lars_trust_coefficient", 0.0, "--lars-trust-coefficient must be > 0"),
        ("adv_lars", "lars_weight_decay", float("nan"), "--lars-weight-decay"),
        ("adv_adamw", "adamw_betas", "x", "--adamw-betas must be two numbers"),
        ("adv_adamw", "adamw_weight_decay", -1.0, "--adamw-weight-decay"),
    ],
)
def test_options_out_of_range_are_named(name, option, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        build(name, ref.random_params(), **{option: value})
