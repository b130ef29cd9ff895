"""The frame of the criterions: plain training, evaluation, the log, and wrong options."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.config import AdversarialConfig, AscentConfig, check_ascent
from fairseq_adv.criterions.frame.registration import with_head_options
from fairseq_adv.criterions.frame.training_log import LOG_KEYS, norm_log
from fairseq_adv.criterions.heads.translation import TranslationHead
from fairseq_adv.perturb import Ball, initial_perturbation
from tests.unit.toy_models import toy_batch, toy_model, toy_task


class RandomPerturbation(AdversarialCriterion):
    """The simplest method: a random perturbation of norm :attr:`norm`."""

    norm = 1.0

    head_type = TranslationHead

    def compared_output(self, batch):
        passes = batch.passes
        delta = initial_perturbation("uniform", passes.ids, passes.masks, passes.dims, Ball(self.norm), 1.0, 1, 1)
        batch.log.update(norm_log(delta))
        return batch.perturbed(delta)


def config(cls=AdversarialConfig, **options):
    options_of = with_head_options(cls, TranslationHead, "Options", __name__)
    return options_of(**{"label_smoothing": 0.1, "sentence_avg": False, "adv_seed": 1, **options})


def plain_criterion(task):
    return LabelSmoothedCrossEntropyCriterion(task, sentence_avg=False, label_smoothing=0.1)


def loss_and_gradients(criterion, model, batches):
    """Losses of *batches* (micro-batches of one update) and the accumulated gradients."""
    model.zero_grad()
    torch.manual_seed(5)
    losses = []
    for batch in batches:
        loss, _, _ = criterion(model, batch)
        loss.backward()
        losses.append(loss.item())
    return losses, [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["transformer", "transformer_shared", "lstm"])
@pytest.mark.parametrize(
    ("options", "radius"),
    [({"adv_lambda": 0.0}, 1.0), ({"adv_outer_masks": "shared"}, 0.0), ({"adv_start_update": 5}, 1.0)],
)
def test_no_strength_is_plain_training_bit_for_bit(name, options, radius):
    task, model = toy_task(), toy_model(name, dropout=0.3)
    batches = [toy_batch(seed=1), toy_batch((7, 2), (3, 4), seed=2, first_id=3)]
    criterion = RandomPerturbation(config(**options), task)
    criterion.norm = radius
    ours, plain = (loss_and_gradients(c, model, batches) for c in (criterion, plain_criterion(task)))
    assert ours[0] == plain[0]
    assert all(torch.equal(a, b) for a, b in zip(ours[1], plain[1]))


def test_fresh_masks_with_zero_perturbation_still_regularise():
    task, model = toy_task(), toy_model(dropout=0.3)
    criterion = RandomPerturbation(config(), task)
    criterion.norm = 0.0
    ours, plain = (loss_and_gradients(c, model, [toy_batch()]) for c in (criterion, plain_criterion(task)))
    assert ours[0][0] > plain[0][0]


def test_evaluation_is_label_smoothed_cross_entropy_bit_for_bit():
    task, model = toy_task(), toy_model(dropout=0.3).eval()
    criterion = RandomPerturbation(config(), task)
    loss, size, log = criterion(model, toy_batch())
    expected, expected_size, expected_log = plain_criterion(task)(model, toy_batch())
    assert torch.equal(loss, expected) and size == expected_size
    assert all(log[key] == value for key, value in expected_log.items())
    assert all(log[key] == 0 for key in LOG_KEYS)


def test_loss_is_cross_entropy_plus_lambda_times_divergence():
    task, model = toy_task(), toy_model()
    criterion = RandomPerturbation(config(adv_lambda=0.5, adv_divergence="kl"), task)
    loss, _, log = criterion(model, toy_batch())
    plain, _, _ = plain_criterion(task)(model, toy_batch())
    assert log["adv_loss"] > 0
    torch.testing.assert_close(loss, plain + 0.5 * log["adv_loss"])
    assert log["adv_norm_src"].item() == pytest.approx(3.0, rel=1e-5)  # three sentences of norm 1


def test_gradient_through_the_clean_output_can_be_stopped():
    task, model = toy_task(), toy_model()
    flowing, stopped = (
        loss_and_gradients(RandomPerturbation(config(adv_detach_clean=d), task), model, [toy_batch()])
        for d in (False, True)
    )
    assert flowing[0] == stopped[0]
    assert any(not torch.equal(a, b) for a, b in zip(flowing[1], stopped[1]))


def test_dummy_batch_is_a_plain_pass():
    task, model = toy_task(), toy_model()
    criterion = RandomPerturbation(config(), task)
    criterion.begin_micro_batch(0, dummy_batch=True)
    loss, _, log = criterion(model, toy_batch())
    assert torch.equal(loss, plain_criterion(task)(model, toy_batch())[0]) and log["adv_loss"] == 0


@pytest.mark.parametrize("sides", ["src", "tgt"])
def test_one_sided(sides):
    task, model = toy_task(), toy_model("transformer_shared")
    _, _, log = RandomPerturbation(config(adv_sides=sides), task)(model, toy_batch())
    other = {"src": "tgt", "tgt": "src"}[sides]
    assert log[f"adv_norm_{sides}"] > 0 and log[f"adv_norm_{other}"] == 0 and log["adv_loss"] > 0


def test_edge_batches_one_token_and_padding_only():
    task, model = toy_task(), toy_model()
    one_token = toy_batch((0,), (0,))
    loss, _, log = RandomPerturbation(config(), task)(model, one_token)
    assert torch.isfinite(loss) and log["adv_norm_src"].item() == pytest.approx(1.0, rel=1e-5)
    padding = toy_batch((2, 1), (2, 1))
    padding["target"] = torch.full_like(padding["target"], 1)
    padding["net_input"]["prev_output_tokens"] = torch.full_like(padding["target"], 1)
    loss, _, log = RandomPerturbation(config(adv_sides="tgt"), task)(model, padding)
    assert loss == 0 and log["adv_loss"] == 0 and log["adv_norm_tgt"] == 0


def test_quantisation_noise_is_refused():
    task, model = toy_task(), toy_model(quant_noise_pq=0.5, quant_noise_pq_block_size=8)
    with pytest.raises(ValueError, match="--quant-noise-pq"):
        RandomPerturbation(config(), task)(model, toy_batch())


@pytest.mark.parametrize(
    ("cls", "option", "value"),
    [
        (AdversarialConfig, "adv_lambda", -1.0),
        (AdversarialConfig, "adv_lambda", float("nan")),
        (AdversarialConfig, "adv_start_update", -1),
        (AscentConfig, "adv_eps", -0.1),
        (AscentConfig, "adv_steps", -1),
        (AscentConfig, "adv_step_size", 0.0),
        (AscentConfig, "adv_init_scale", 2.0),
        (AscentConfig, "adv_init", "zero"),
    ],
)
def test_wrong_options_are_named_with_their_value(cls, option, value):
    cfg = config(cls, **{option: value})
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')}.*{value}"):
        RandomPerturbation(cfg, toy_task()) if cls is AdversarialConfig else check_ascent(cfg)


def test_task_is_told_once_and_its_own_method_still_runs():
    task = toy_task()
    seen = []
    type(task).begin_epoch = lambda self, epoch, model: seen.append(epoch)
    first: Any = RandomPerturbation(config(), task)
    second: Any = RandomPerturbation(config(), task)
    calls: Dict[int, List[int]] = {0: [], 1: []}
    first.begin_epoch, second.begin_epoch = calls[0].append, calls[1].append
    task.begin_epoch(3, None)
    assert seen == [3] and calls == {0: [], 1: [3]}
    second.checkpoint_state = lambda: {"x": 1}
    assert task.get_checkpoint_dict() == {"ToyTask": {"fairseq_adv": {"x": 1}}}
    restored = []
    second.begin_training = lambda trainer, state: restored.append(state)
    task.after_load_checkpoint(SimpleNamespace(), task.get_checkpoint_dict(), False)
    assert restored == [{"x": 1}]
