"""Number formats on disk: how exact they are, and records of one token or none."""

from __future__ import annotations

import pytest
import torch

from fairseq_adv.cache.shard import decode_rows, encode_rows
from tests.unit.cache.caches import DIM, EPSILON, delta, open_for_writing, reader_of

# the rounding error of a format, relative to the largest value of a row
STEP = {"fp32": 2.0**-23, "fp16": 2.0**-11, "int8": 0.5 / 127 + 1e-6}


@pytest.mark.parametrize("dtype", STEP)
@pytest.mark.parametrize("epsilon", [1e-4, 0.5, 30.0])
def test_what_comes_back_is_within_the_rounding_of_the_format(dtype, epsilon):
    rows = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    rows[3] = 0
    rows *= 0.99 * epsilon / rows.norm()
    back = decode_rows(*encode_rows(rows, epsilon, dtype), epsilon)
    bound = STEP[dtype] * rows.abs().amax(dim=1, keepdim=True) + 1e-9 * epsilon
    if dtype == "fp16":
        bound = bound + epsilon * 2.0**-25  # subnormal steps
    assert back.dtype == torch.float32 and ((back - rows).abs() <= bound).all()
    assert dtype == "fp32" or not torch.equal(back, rows)
    assert torch.equal(back[3], torch.zeros(32))


@pytest.mark.parametrize("dtype", STEP)
def test_records_of_one_token_and_of_none(tmp_path, dtype):
    cache = open_for_writing(tmp_path, dtype, ema=0.0)
    lengths = {7: 0, 8: 1, 9: 4, 10: 0}
    cache.begin_refresh(1)
    rows = {side: [delta(i, 1, side, n) for i, n in lengths.items()] for side in ("src", "tgt")}
    cache.put(list(lengths), 1, rows["src"], rows["tgt"])
    cache.commit()
    read = reader_of(cache).read(list(lengths), "src")
    assert [x.shape for x in read] == [(n, DIM) for n in lengths.values()]
    for got, want in zip(read, rows["src"]):
        torch.testing.assert_close(got, want, atol=EPSILON * 5e-3, rtol=0)
    means, norms = reader_of(cache).read_means([7, 8], "src")
    assert torch.equal(means[0], torch.zeros(DIM)) and norms[0] == 0
    torch.testing.assert_close(means[1], rows["src"][1][0])


def test_a_cache_of_empty_records_only(tmp_path):
    cache = open_for_writing(tmp_path, "int8")
    cache.begin_refresh(1)
    cache.put([3], 1, [torch.zeros(0, DIM)], [torch.zeros(0, DIM)])
    cache.commit()
    assert reader_of(cache).read([3], "tgt")[0].shape == (0, DIM)
