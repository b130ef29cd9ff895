"""After an update nothing of its batches is left: no output, and no model inside the criterion."""

from __future__ import annotations

import gc
import weakref
from typing import Any, Dict, List

import pytest
from fairseq import utils

from fairseq_adv.losses import Projected
from tests.unit.criterions.strong_methods import KNOWN_BEFOREHAND, WITH_DIVERGENCE, method
from tests.unit.criterions.updates import run_update
from tests.unit.toy_models import toy_batch, toy_model

CASES: Dict[str, Dict[str, Any]] = {
    **{name: {} for name in ("arch", "disadv", "freeat", "freelb", "r3f", "rdrop", "scala", "simcut", "smart", "vat")},
    "conadv": {"conadv_mode": "shifted"},
    "scala ce": {"scala_loss": "ce"},
    "smart bregman": {"smart_bregman": 0.5},
    **{f"{name} detached": {"adv_detach_clean": True} for name in WITH_DIVERGENCE},
    **{f"{name} concat": {"adv_passes": "concat"} for name in KNOWN_BEFOREHAND if name != "conadv"},
    **{f"{name} recompute": {"adv_passes": "recompute"} for name in (*WITH_DIVERGENCE, "rdrop")},
    **{
        f"{name} fused": {"adv_vocabulary": "fused"} for name in ("arch", "conadv", "freelb", "rdrop", "scala", "smart")
    },
    **{f"{name} perturbed": {"adv_objective": "perturbed"} for name in WITH_DIVERGENCE},
}


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def remembering(criterion, outputs):
    """Have *outputs* hold a weak reference to the result of every pass, and to every batch with what it holds."""
    forward, open_batch = criterion.head.forward, criterion.open_batch

    def remember(model, sample):
        output = forward(model, sample)
        outputs.append(weakref.ref(output.features if isinstance(output, Projected) else output))
        return output

    def remember_batch(model, sample):
        batch = open_batch(model, sample)
        outputs.append(weakref.ref(batch))
        return batch

    criterion.head.forward, criterion.open_batch = remember, remember_batch


@pytest.mark.parametrize("case", CASES)
def test_no_output_outlives_its_update(no_collector, case):
    batch, model = toy_batch(), toy_model(dropout=0.1)
    outputs: List[Any] = []
    criterion = method(case.split()[0], batch, **CASES[case])
    remembering(criterion, outputs)
    model.register_forward_hook(lambda _, __, output: outputs.append(weakref.ref(output[0])))
    for update in range(5):
        criterion.train()
        run_update(criterion, model, [batch] * 4, update)
        alive = [reference for reference in outputs if reference() is not None]
        assert len(outputs) >= 8 and not alive, f"{len(alive)} of {len(outputs)} outputs live on"
        outputs.clear()


@pytest.mark.parametrize("case", CASES)
def test_the_model_is_no_part_of_the_criterion(case):
    batch = toy_batch()
    criterion = method(case.split()[0], batch, **CASES[case])
    run_update(criterion, toy_model(), [batch])
    assert not list(criterion.children()) and not criterion.state_dict() and not utils.has_parameters(criterion)
