"""--adv-vocabulary fused in half and mixed precision: no further from single precision than holding all logits is."""

from __future__ import annotations

import pytest
import torch

from tests.unit.criterions.strong_methods import method
from tests.unit.criterions.test_fused_vocabulary import CASES, distance, network
from tests.unit.criterions.updates import run_update
from tests.unit.toy_models import toy_batch

# what an ascent reaches in half precision hangs on rounding: here are the methods whose perturbation does not
KNOWN = ["plain", "r3f", "r3f detached", "simcut concat", "rdrop", "arch recompute", "arch perturbed"]
EXACT = {torch.float16: 1e-2, torch.bfloat16: 8e-2}


def updates(case, dtype, scale, autocast=False):
    """The updates of *case* fused, with all logits and in single precision, the loss times *scale*."""
    batch, found = toy_batch(), []
    for vocabulary, half in (("fused", True), ("full", True), ("full", False)):
        model = network("bias").to(dtype)  # the same rounded parameters
        model = model if half and not autocast else model.float()
        criterion = method(case.split()[0], batch, adv_vocabulary=vocabulary, **CASES.get(case, {}))
        with torch.autocast("cpu", dtype=dtype, enabled=half and autocast):
            update = run_update(criterion, model, [batch], scale=scale)
        gradients = [gradient.float() / scale for gradient in update.gradients]
        found.append(update._replace(gradients=gradients))
    return found


@pytest.mark.parametrize("case", KNOWN)
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 1.0), (torch.float16, 64.0), (torch.bfloat16, 1.0)])
def test_half_precision(case, dtype, scale):
    fused, full, exact = updates(case, dtype, scale)
    assert fused.loss.item() == pytest.approx(exact.loss.item(), rel=EXACT[dtype])
    assert distance(fused, exact) <= min(EXACT[dtype], 1.5 * distance(full, exact) + 1e-3)


@pytest.mark.parametrize("case", KNOWN)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(case, dtype):
    """Parameters in fp32, matrix products in half precision, as --amp has it on a GPU."""
    fused, full, exact = updates(case, dtype, 16.0, autocast=True)
    assert fused.loss.item() == pytest.approx(exact.loss.item(), rel=EXACT[dtype])
    assert distance(fused, exact) <= min(EXACT[dtype], 1.5 * distance(full, exact) + 1e-3)


@pytest.mark.parametrize("case", ["smart", "vat", "scala", "freelb"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ascents_in_half_precision_reach_as_far(case, dtype):
    fused, full, _ = updates(case, dtype, 1.0)
    assert fused.log["adv_loss"].item() == pytest.approx(full.log["adv_loss"].item(), rel=0.1)
    assert fused.log.get("adv_nonfinite", 0) == 0


def test_a_sentence_without_a_finite_gradient_spoils_no_other_one():
    """In fp16 too, where gradients are scaled by the largest of a chunk."""
    found = {}
    for vocabulary in ("fused", "full"):
        model, batch = network("own").half(), toy_batch()
        row = batch["net_input"]["prev_output_tokens"][2]
        with torch.no_grad():
            model.decoder.embed_tokens.weight[row[1]] = float("inf")  # a word of the third sentence alone
        criterion = method("smart", batch, adv_vocabulary=vocabulary)
        found[vocabulary] = run_update(criterion, model, [batch]).log["adv_nonfinite"]
    assert found["fused"] == found["full"] == 1
