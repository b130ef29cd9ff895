"""The scheduler against its formula, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("fairseq")

from fairseq import optim, tasks
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.lr_scheduler import build_lr_scheduler
from fairseq.registry import REGISTRIES
from fairseq.tasks.translation import TranslationTask
from omegaconf import OmegaConf, open_dict

import fairseq_adv.optim  # noqa: F401  (registers)
from fairseq_adv.data.batch_tokens import parse_batch_tokens

BATCHES = {0: 8000, 5: 32000, 30: 128000}
LR, WARMUP = 0.002, 10


class CountsTokens(TranslationTask):
    """A task that counts batches in tokens."""

    @classmethod
    def build_batch_tokens_schedule(cls, cfg):
        return parse_batch_tokens(cfg.schedule) if cfg.schedule else None


@pytest.fixture(autouse=True)
def registered_task(monkeypatch):
    monkeypatch.setitem(tasks.TASK_REGISTRY, "counts_tokens", CountsTokens)


def build(task="counts_tokens", schedule="8k@0,32k@5,128k@30", lr=(LR,), **options):
    cfg = OmegaConf.structured(FairseqConfig())
    with open_dict(cfg):
        for kind, name in (("optimizer", "adv_adamw"), ("lr_scheduler", "inverse_sqrt_batch")):
            node = REGISTRIES[kind]["dataclass_registry"][name]()
            node._name = name
            cfg[kind] = OmegaConf.structured(node)
        given = {"lr_base_batch_tokens": 32000, "lr_warmup_updates": WARMUP, **options}
        cfg.lr_scheduler = OmegaConf.merge(cfg.lr_scheduler, given)
        cfg.optimization.lr = list(lr)
        cfg.task = {"_name": task, "schedule": schedule}
    optimizer = optim.build_optimizer(cfg.optimizer, [torch.nn.Parameter(torch.ones(2, 2))])
    return build_lr_scheduler(cfg.lr_scheduler, optimizer), optimizer


def batch_at(update):
    return BATCHES[max(start for start in BATCHES if start <= update)]


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("init_lr", [0.0, 0.0005])
def test_rate_is_the_formula(power, init_lr):
    scheduler, optimizer = build(lr_batch_power=power, lr_warmup_init_lr=init_lr)
    for update in (0, 1, 4, 5, 9, 10, 11, 29, 30, 31, 5000):
        if update < WARMUP:
            plain = init_lr + (LR - init_lr) * update / WARMUP
        else:
            plain = LR * math.sqrt(WARMUP) / math.sqrt(update)
        expected = plain * (batch_at(update) / 32000) ** power
        assert scheduler.step_update(update) == pytest.approx(expected, rel=1e-12)
        assert optimizer.get_lr() == pytest.approx(expected, rel=1e-12)


def test_power_0_is_fairseqs_inverse_sqrt_on_any_task():
    scheduler, optimizer = build(task="translation", lr_batch_power=0.0, lr_base_batch_tokens=0)
    theirs_cls = REGISTRIES["lr_scheduler"]["registry"]["inverse_sqrt"]
    node = REGISTRIES["lr_scheduler"]["dataclass_registry"]["inverse_sqrt"]
    theirs = theirs_cls(OmegaConf.structured(node(warmup_updates=WARMUP, lr=[LR])), optimizer)
    for update in (0, 3, 9, 10, 12, 400):
        assert scheduler.step_update(update) == pytest.approx(theirs.step_update(update), rel=1e-12)


def test_first_rate_is_scaled_when_built():
    _, optimizer = build(lr_warmup_init_lr=0.0005, lr_batch_power=1.0)
    assert optimizer.get_lr() == pytest.approx(0.0005 * 8000 / 32000)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"lr_batch_power": -0.5}, "--lr-batch-power must be >= 0"),
        ({"lr_base_batch_tokens": 0}, "--lr-base-batch-tokens must be >= 1 with --lr-batch-power 0.5"),
        ({"lr_warmup_updates": 0}, "--lr-warmup-updates must be >= 1"),
        ({"lr_warmup_init_lr": -1.0}, "--lr-warmup-init-lr"),
        ({"lr": (0.1, 0.2)}, "takes one --lr"),
        ({"schedule": ""}, "--target-batch-tokens"),
        ({"task": "translation"}, "task 'translation' does not have"),
        ({"schedule": "8k"}, "--batch-tokens-schedule '8k'"),
    ],
)
def test_refusals_name_the_option(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        build(**options)
