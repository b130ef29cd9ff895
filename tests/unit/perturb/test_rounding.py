"""Coordinates that half precision rounds away, counted one by one."""

from __future__ import annotations

import pytest
import torch

from fairseq_adv.perturb.rounding import share_lost_to_rounding


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 8), (torch.float16, 11)])
def test_the_share_equals_a_count_with_exact_spacings(dtype, digits):
    generator, dim, norm = torch.Generator().manual_seed(5), 256, 0.1 / 28
    weight = (torch.randn(64, dim, generator=generator) * dim**-0.5).to(dtype)
    lost = total = 0
    draws = torch.Generator().manual_seed(8)
    for x in weight.double():
        delta = torch.randn(dim, generator=draws).double()
        delta = delta * (norm / float(delta.norm()))
        for a, b in zip(x.tolist(), delta.tolist()):
            spacing = 2.0 ** (torch.tensor(abs(a)).log2().floor().item() - digits + 1)
            lost += abs(b) < spacing / 2
            total += 1
    assert share_lost_to_rounding(weight, norm) == pytest.approx(lost / total, abs=0.02)
    assert share_lost_to_rounding(weight, 10.0) < 0.01


def test_the_papers_radius_loses_much_more_in_bf16_than_in_fp16_and_nothing_in_fp32():
    weight = torch.randn(600, 1024, generator=torch.Generator().manual_seed(1)) * 1024**-0.5
    shares = [share_lost_to_rounding(weight.to(d), 0.1 / 28) for d in (torch.bfloat16, torch.float16, torch.float32)]
    assert 0.3 < shares[0] < 0.6 and 0.02 < shares[1] < 0.12 and shares[2] < 1e-3
