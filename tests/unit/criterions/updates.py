"""One training update of a criterion, as the trainer drives it, for tests that look at its loss and gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from torch import Tensor, nn

import fairseq_adv.criterions  # noqa: F401
from fairseq_adv.criterions.frame.honoured import not_honoured_by
from fairseq_adv.perturb import sample_noise
from tests.unit.criterions.reference import TOKENS, Columns, in_columns
from tests.unit.sentence_models import sentence_task
from tests.unit.toy_models import toy_task

SEED = 3
DIM = 16


def make_criterion(name: str, task: Any = None, **options: Any) -> Any:
    """The criterion that is registered as *name*; options not named have their defaults."""
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY

    translates = name.endswith("_label_smoothed")
    own = {"label_smoothing": 0.1, "sentence_avg": False} if translates else {}
    cfg = CRITERION_DATACLASS_REGISTRY[name](**{**own, **options})
    if getattr(cfg, "adv_seed", SEED) is None and "adv_seed" not in dict(
        not_honoured_by(CRITERION_REGISTRY[name].method, cfg)
    ):
        cfg.adv_seed = SEED
    return CRITERION_REGISTRY[name](cfg, task or (toy_task() if translates else sentence_task()))


def honoured(name: str, **options: Any) -> Dict[str, Any]:
    """*options* without the common ones that the criterion *name* refuses."""
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY

    cfg = CRITERION_DATACLASS_REGISTRY[name](**options)
    refused = dict(not_honoured_by(CRITERION_REGISTRY[name].method, cfg))
    return {option: value for option, value in options.items() if option not in refused}


def plain_criterion(task: Any = None) -> LabelSmoothedCrossEntropyCriterion:
    """fairseq's own."""
    return LabelSmoothedCrossEntropyCriterion(task or toy_task(), sentence_avg=False, label_smoothing=0.1)


class Update(NamedTuple):
    """Loss, log and parameter gradients (zero where there is none) of one update."""

    loss: Tensor
    log: Dict[str, Any]
    gradients: List[Tensor]


def run_update(
    criterion: Any,
    model: nn.Module,
    batches: Sequence[Dict[str, Any]],
    update_num: int = 0,
    seed: int = 5,
    scale: float = 1.0,
) -> Update:
    """Forward and backward passes of *batches*, the micro-batches of one update; no optimizer step.

    Gradients are those of *scale* times the loss, as an optimizer in half precision has it.
    """
    model.zero_grad()
    torch.manual_seed(seed)
    optimizer = SimpleNamespace(backward=lambda loss: (scale * loss).backward())
    total = torch.zeros(())
    for batch in batches:
        if hasattr(criterion, "begin_micro_batch"):
            criterion.begin_micro_batch(update_num, dummy_batch=False)
            criterion.begin_pass(model)
        if hasattr(criterion, "drives_backward") and criterion.drives_backward():
            loss, _, log = criterion.train_step(batch, model, optimizer, update_num)
        else:
            loss, _, log = criterion(model, batch)
            optimizer.backward(loss)
        total = total + loss.detach()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    return Update(total, log, gradients)


def assert_matches(update: Update, model: nn.Module, expected_loss: Tensor, rel: float = 2e-4) -> None:
    """*update* has the loss and the parameter gradient of *expected_loss*, a graph over *model*."""
    assert update.loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    expected = torch.autograd.grad(expected_loss, list(model.parameters()), allow_unused=True)
    names = [name for name, _ in model.named_parameters()]
    scale = max(g.abs().max().item() for g in expected if g is not None)
    for name, got, wanted in zip(names, update.gradients, expected):
        wanted = torch.zeros_like(got) if wanted is None else wanted
        difference = (got - wanted).abs().max().item()
        allowed = rel * max(wanted.abs().max().item(), 0.01 * scale)
        assert difference <= allowed, f"gradient of {name} is off by {difference:.2e}, at most {allowed:.2e} allowed"


def same_bits(a: Update, b: Update) -> bool:
    """Whether two updates have the same loss and gradients bit for bit."""
    return torch.equal(a.loss, b.loss) and all(torch.equal(x, y) for x, y in zip(a.gradients, b.gradients))


def noise_in_columns(
    distribution: str,
    batch: Dict[str, Any],
    sides: Sequence[str] = ("src", "tgt"),
    stream: int = 1,
    dim: Optional[int] = None,
) -> Columns:
    """The numbers that the method draws (they have their own oracle), in the columns of the batch."""
    noise = {}
    for side in sides:
        tokens = batch["net_input"][TOKENS[side]]
        values = sample_noise(distribution, batch["id"], tokens.size(1), dim or DIM, SEED, stream, side)
        noise[side] = in_columns(values.double(), tokens)
    return noise
