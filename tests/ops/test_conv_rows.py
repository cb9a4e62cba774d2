# SPDX-License-Identifier: MIT
"""reflect_conv2d over rows, in tiles so small that a few pixels need many programs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_within_budget

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_rows as rows
from cyclegan_fast.ops.reflect_conv2d.calls import Forward

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# x and weight: odd sizes, channels off the block, one pixel of a result, tiles without a pixel.
CASES = [
    ((2, 32, 7, 9), (48, 32, 3, 3)),
    ((1, 16, 3, 23), (16, 16, 1, 20)),
    ((1, 16, 4, 3), (32, 16, 4, 3)),
    ((3, 48, 3, 5), (16, 48, 1, 1)),
]


@pytest.fixture(autouse=True, params=["pointers", "descriptors"])
def form(request, monkeypatch):
    small = rows.Tiles(16, 32, 32, 4, 1)
    monkeypatch.setattr(rows, "TILES", dict.fromkeys(rows.TILES, small))
    monkeypatch.setattr(rows, "EACH", 32)
    monkeypatch.setattr(rows, "MOST_CHUNKS", 2)
    if request.param == "descriptors":
        monkeypatch.setattr(rows, "_architecture", lambda: 90)
    return request.param


def drawn(shape, dtype, seed, scale=1.0, centre=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + centre
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def empty(shape, dtype):
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


def operands(shape, weight_shape, dtype, seed=0):
    fan = weight_shape[1] * weight_shape[2] * weight_shape[3]
    x = drawn(shape, dtype, seed, centre=0.5)
    weight = drawn(weight_shape, dtype, seed + 1, 0.5 / fan**0.5)
    bias = drawn((weight_shape[0], 1, 1, 1), dtype, seed + 2).flatten()
    assert rows.why_not(x, weight, 0, 1) is None
    return x, weight, bias


def forward_call(shape, weight_shape, dtype, seed=0, with_bias=True, with_moments=True):
    x, weight, bias = operands(shape, weight_shape, dtype, seed)
    n, _, height, width = shape
    out_channels, _, *kernel = weight_shape
    y = empty((n, out_channels, height - kernel[0] + 1, width - kernel[1] + 1), dtype)
    chunks = rows.moments_cover(shape, weight_shape, 0, 1)[0]
    moments = torch.empty(n, chunks, 2, out_channels) if with_moments else None
    return Forward(x, weight, bias if with_bias else None, y, moments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "weight_shape"), CASES, ids=str)
def test_forward(shape, weight_shape, dtype):
    for tanh, with_bias in [(False, False), (True, True)]:
        call = forward_call(shape, weight_shape, dtype, with_bias=with_bias)
        rows.forward([call], 0, 1, tanh)
        results = []
        for wide in (dtype, torch.float64):
            bias = None if call.bias is None else call.bias.to(wide)
            y = F.conv2d(call.x.to(wide), call.weight.to(wide), bias)
            results.append(y.tanh() if tanh else y)
        assert_within_budget(call.y, *results, "y")
        check_moments(call)


def check_moments(call):
    """Of the values as stored, chunk by chunk."""
    chunks, each, pitch = rows.moments_cover(call.x.shape, call.weight.shape, 0, 1)
    assert chunks <= rows.MOST_CHUNKS
    n, channels, height, width = call.y.shape
    laid = torch.full((n, channels, height, pitch), torch.nan, dtype=torch.float64)
    laid[..., :width] = call.y.double()
    laid = F.pad(laid.flatten(2), (0, chunks * each - height * pitch), value=torch.nan)
    laid = laid.view(n, channels, chunks, each)
    mean = laid.nanmean(-1).nan_to_num()  # a chunk may be without a pixel
    m2 = ((laid - mean[..., None]) ** 2).nansum(-1)
    ours = call.moments.double().permute(2, 0, 3, 1)
    size = call.y.double().abs().max()
    assert ((ours[0] - mean).abs() <= 4e-7 * size).all()
    merging = 4e-7 * size * (m2 * each).sqrt()  # of means that are rounded
    assert ((ours[1] - m2).abs() <= 1e-6 * m2 + merging).all()


def test_moments_far_from_zero():
    call = forward_call((1, 16, 8, 9), (16, 16, 3, 3), torch.float32)
    call.bias.fill_(1000.0)
    rows.forward([call], 0, 1, False)
    check_moments(call)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_two_forward_calls_are_each_alone(dtype):
    for with_bias, with_moments in [(True, True), (False, False)]:
        options = {"with_bias": with_bias, "with_moments": with_moments}
        together = [forward_call(*CASES[0], dtype, seed, **options) for seed in (0, 5)]
        alone = [forward_call(*CASES[0], dtype, seed, **options) for seed in (0, 5)]
        rows.forward(together, 0, 1, False)
        for ours, one in zip(together, alone, strict=True):
            rows.forward([one], 0, 1, False)
            assert torch.equal(ours.y, one.y)
            if with_moments:
                assert torch.equal(ours.moments, one.moments)
