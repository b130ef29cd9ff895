"""The optimizers and the batch-following scheduler under the real ``fairseq-train``."""

from __future__ import annotations

import math

import pytest
import torch

from tests.integration.running import build_trainer, default_args, epoch_batches, run_fairseq_train, save_checkpoint

OPTIMIZERS = {
    "adv_lamb": ["--optimizer", "adv_lamb", "--lr", 0.02, "--lamb-betas", "(0.9, 0.98)"],
    "adv_lars": ["--optimizer", "adv_lars", "--lr", 0.3, "--lars-trust-coefficient", 0.05],
    "adv_adamw": ["--optimizer", "adv_adamw", "--lr", 0.01, "--adamw-weight-decay", 0.01],
}
FP16 = ["--fp16", "--memory-efficient-fp16", "--fp16-init-scale", 16]
FP32_COPIES = ["--fp16", "--fp16-no-flatten-grads", "--fp16-init-scale", 16]
PRECISIONS = pytest.mark.parametrize(
    "precision", [[], FP16, FP32_COPIES], ids=["fp32", "memory_efficient_fp16", "fp16_no_flatten"]
)

# A task of a user's own that counts batches in tokens: all that the scheduler asks for is the class method.
PLUGIN = """
from dataclasses import dataclass, field

import fairseq_adv
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from fairseq_adv.data.batch_tokens import parse_batch_tokens


@dataclass
class Config(TranslationConfig):
    demo_schedule: str = field(default="", metadata={"help": "target tokens per update"})


@register_task("demo_counts_tokens", dataclass=Config)
class DemoTask(TranslationTask):
    @classmethod
    def build_batch_tokens_schedule(cls, cfg):
        return parse_batch_tokens(cfg.demo_schedule)
"""


def train(args, epochs, save=False):
    """Run ``epochs`` in this process as fairseq-train would; returns the trainer and the losses."""
    trainer = build_trainer(args).trainer
    losses = []
    for epoch in epochs:
        losses += [float(trainer.train_step(batches)["loss"]) for batches in epoch_batches(trainer, epoch)]
    if save:
        save_checkpoint(trainer)
    return trainer, losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fairseq_train_learns_in_memory_efficient_fp16(tiny_corpus, tmp_path, name):
    args = [*default_args(tiny_corpus, tmp_path), *OPTIMIZERS[name], *FP16, "--max-epoch", 2, "--no-save"]
    losses = run_fairseq_train(args).column("loss")
    assert len(losses) > 10 and all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-3:]) < sum(losses[:3]) - 1.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learns_in_fp32(tiny_corpus, tmp_path, name):
    _, losses = train([*default_args(tiny_corpus, tmp_path), *OPTIMIZERS[name]], epochs=[1, 2])
    assert sum(losses[-3:]) < sum(losses[:3]) - 1.5


@PRECISIONS
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resume_ends_at_the_same_weights(tiny_corpus, tmp_path, name, precision):
    def arguments(save_dir):
        return [*default_args(tiny_corpus, tmp_path / save_dir), *OPTIMIZERS[name], *precision]

    straight, losses = train(arguments("straight"), epochs=[1, 2])
    stopped, _ = train(arguments("stopped"), epochs=[1], save=True)
    resumed, _ = train(arguments("stopped"), epochs=[2])
    assert resumed.get_num_updates() == straight.get_num_updates() == len(losses)
    expected, got = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(got[key], expected[key]) for key in expected)
    assert any(not torch.equal(stopped.model.state_dict()[key], expected[key]) for key in expected)


def test_scheduler_follows_the_tasks_batch_across_a_resume(tiny_corpus, tmp_path):
    plugin = tmp_path / "demo_plugin"
    plugin.mkdir()
    (plugin / "__init__.py").write_text(PLUGIN)

    def rates(max_update):
        args = default_args(tiny_corpus, tmp_path / "save", user_dir=plugin)
        args += ["--task", "demo_counts_tokens", "--demo-schedule", "2k@0,8k@4,18k@7"]
        args += ["--lr-scheduler", "inverse_sqrt_batch", "--lr-base-batch-tokens", "2000", "--lr-batch-power", "0.5"]
        args += ["--lr-warmup-updates", "3", "--lr", "0.001"]
        return run_fairseq_train([*args, "--max-update", max_update]).column("lr")

    def expected(update):
        plain = 0.001 * (update / 3 if update < 3 else math.sqrt(3 / update))
        return plain * (1 if update < 4 else 2 if update < 7 else 3)

    # fairseq logs the rate that the next update will use
    logged = rates(5) + rates(9)
    assert len(logged) == 9
    assert logged == pytest.approx([expected(update) for update in range(1, 10)], rel=1e-2, abs=1e-9)


def test_scheduler_refuses_a_task_that_does_not_count_tokens(tiny_corpus, tmp_path):
    args = [*default_args(tiny_corpus, tmp_path), "--lr-scheduler", "inverse_sqrt_batch"]
    with pytest.raises(ValueError, match=r"task 'translation' does not have.*--lr-batch-power 0"):
        train([*args, "--lr-base-batch-tokens", 2000], epochs=[1])
