"""Inverse-square-root schedule whose rate follows the batch size, for batches counted in tokens.

::

    lr(u) = inverse_sqrt(u) · (batch_tokens(u) / base_batch_tokens) ^ power

``inverse_sqrt`` is fairseq's: linear from ``--lr-warmup-init-lr`` to ``--lr`` over
``--lr-warmup-updates`` updates, then ``lr · √(warmup / u)`` (Vaswani et al. 2017, Eq. 3, up to the
constant). Powers in use: 0 (off), ½ (Krizhevsky 2014; LAMB, You et al. 2020), 1 (linear scaling,
Goyal et al. 2017) and ¼, a step between.

Who knows the batch size: the *task*. It is asked through fairseq's task registry, as a class and
with its own options, so that the rate is a pure function of the configuration and the update
number: right for update 0, after a resume and on every rank, with nothing to save. A task takes
part by offering the class method :data:`TASK_METHOD`, which gets the task's config and returns
an object with ``at(update) -> tokens``, or ``None`` where batches are not counted in tokens.
"""

from dataclasses import dataclass, field
from typing import Any, Callable, List

from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from fairseq.tasks import TASK_REGISTRY
from omegaconf import II, DictConfig

from fairseq_adv.optim.param_groups import check_at_least_zero, first_lr

#: class method of a task: config → object with ``at(update)``, or None
TASK_METHOD = "build_batch_tokens_schedule"


@dataclass
class InverseSqrtBatchConfig(FairseqDataclass):
    """Options of ``--lr-scheduler inverse_sqrt_batch``."""

    lr_base_batch_tokens: int = field(
        default=0,
        metadata={"help": "target tokens per update at which --lr holds unscaled; needed unless --lr-batch-power is 0"},
    )
    lr_batch_power: float = field(
        default=0.5,
        metadata={"help": "power of batch / base, >= 0: 0 means off, 0.5 square root (default), 1 linear scaling"},
    )
    lr_warmup_updates: int = field(
        default=4000, metadata={"help": "updates of linear warm-up, default 4000; at least 1"}
    )
    lr_warmup_init_lr: float = field(default=0.0, metadata={"help": "learning rate warm-up starts from, default 0"})
    lr: List[float] = field(default=II("optimization.lr"))


@register_lr_scheduler("inverse_sqrt_batch", dataclass=InverseSqrtBatchConfig)
class InverseSqrtBatch(FairseqLRScheduler):
    """Inverse square root of the update number times a power of the batch size."""

    def __init__(self, cfg: InverseSqrtBatchConfig, optimizer: FairseqOptimizer) -> None:
        super().__init__(cfg, optimizer)
        _check(cfg)
        self.peak_lr = first_lr(cfg.lr)
        self.batch_tokens = _batch_tokens_of_task(cfg) if cfg.lr_batch_power > 0 else None
        self.lr = self.step_update(0)

    def step_update(self, num_updates: int) -> float:
        """Set and return the rate of the update that follows ``num_updates`` finished ones."""
        self.lr = self._inverse_sqrt(num_updates) * self._batch_factor(num_updates)
        self.optimizer.set_lr(self.lr)
        return self.lr

    def _inverse_sqrt(self, update: int) -> float:
        warmup, start = self.cfg.lr_warmup_updates, self.cfg.lr_warmup_init_lr
        if update < warmup:
            return start + update * (self.peak_lr - start) / warmup
        return self.peak_lr * (warmup / update) ** 0.5

    def _batch_factor(self, update: int) -> float:
        if self.batch_tokens is None:
            return 1.0
        return (self.batch_tokens(update) / self.cfg.lr_base_batch_tokens) ** self.cfg.lr_batch_power


def _check(cfg: InverseSqrtBatchConfig) -> None:
    check_at_least_zero(lr_batch_power=cfg.lr_batch_power, lr_warmup_init_lr=cfg.lr_warmup_init_lr)
    if not isinstance(cfg.lr, (int, float)) and len(cfg.lr) > 1:
        raise ValueError(f"--lr-scheduler inverse_sqrt_batch takes one --lr, got {list(cfg.lr)}")
    if cfg.lr_warmup_updates < 1:
        raise ValueError(f"--lr-warmup-updates must be >= 1, got {cfg.lr_warmup_updates}")
    if cfg.lr_batch_power > 0 and cfg.lr_base_batch_tokens < 1:
        raise ValueError(
            f"--lr-base-batch-tokens must be >= 1 with --lr-batch-power {cfg.lr_batch_power}, got "
            f"{cfg.lr_base_batch_tokens}: give the target tokens per update for which --lr was tuned"
        )


def _batch_tokens_of_task(cfg: Any) -> Callable[[int], float]:
    """The task's ``update → target tokens``; ``ValueError`` if it does not count batches in tokens."""
    task_cfg = getattr(cfg._get_root(), "task", None) if isinstance(cfg, DictConfig) else None
    name = getattr(task_cfg, "_name", None)
    build = getattr(TASK_REGISTRY.get(name), TASK_METHOD, None)
    schedule = build(task_cfg) if build is not None else None
    if schedule is None:
        raise ValueError(
            f"--lr-scheduler inverse_sqrt_batch scales with a batch counted in tokens, which task {name!r} does not "
            "have: use --task adversarial_translation with --target-batch-tokens or --batch-tokens-schedule, or set "
            "--lr-batch-power 0"
        )
    return schedule.at
