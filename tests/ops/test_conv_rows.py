# SPDX-License-Identifier: MIT
"""reflect_conv2d over rows, in tiles so small that a few pixels need many programs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_within_budget

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_rows as rows
from cyclegan_fast.ops.reflect_conv2d import triton_rows_tiles as cut
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfWeight

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# x and weight: odd sizes, channels off the block, one pixel of a result, tiles without a pixel.
CASES = [
    ((2, 32, 6, 7), (48, 32, 3, 2)),
    ((1, 16, 3, 23), (16, 16, 1, 20)),
    ((1, 16, 4, 3), (32, 16, 4, 3)),
    ((3, 48, 3, 5), (16, 48, 1, 1)),
]
TWO = ((2, 32, 5, 6), (16, 32, 2, 2))


@pytest.fixture(autouse=True, params=["pointers", "descriptors"])
def form(request, monkeypatch):
    small = cut.Tiles(16, 32, 32, 4, 1)
    monkeypatch.setattr(cut, "TILES", dict.fromkeys(cut.TILES, small))
    monkeypatch.setattr(cut, "EACH", 32)
    monkeypatch.setattr(cut, "MOST_CHUNKS", 2)
    monkeypatch.setattr(cut, "PROGRAMS", 40)
    if request.param == "descriptors":
        monkeypatch.setattr(cut, "architecture", lambda: 90)
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
    assert chunks <= cut.MOST_CHUNKS
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
        together = [forward_call(*TWO, dtype, seed, **options) for seed in (0, 5)]
        alone = [forward_call(*TWO, dtype, seed, **options) for seed in (0, 5)]
        rows.forward(together, 0, 1, False)
        for ours, one in zip(together, alone, strict=True):
            rows.forward([one], 0, 1, False)
            assert torch.equal(ours.y, one.y)
            if with_moments:
                assert torch.equal(ours.moments, one.moments)


def weight_call(shape, weight_shape, dtype, seed=0, wide=False, asked=(True, True), tanh=False):
    """The gradients of a weight and a bias, in float32 if wide."""
    forward = forward_call(shape, weight_shape, dtype, seed, with_moments=False)
    grad_y = drawn(forward.y.shape, dtype, seed + 3)
    y = drawn(forward.y.shape, dtype, seed + 4).tanh() if tanh else None
    of = torch.float32 if wide else dtype
    grad_weight = empty(weight_shape, of) if asked[0] else None
    grad_bias = torch.empty(weight_shape[0], dtype=of) if asked[1] else None
    work = torch.empty(rows.workspace(grad_y.shape, weight_shape))
    return OfWeight(grad_y, y, forward.x, grad_weight, grad_bias, work)


def derivative(call, wide):
    """What comes to the convolution's result, in a dtype."""
    grad = call.grad_y.to(wide)
    return grad if call.y is None else grad * (1 - call.y.to(wide) ** 2)


def check_weight(call, weight_shape):
    """Against eager PyTorch in the gradients' dtype."""
    gradients = [g for g in (call.grad_weight, call.grad_bias) if g is not None]
    plain = []
    for wide in (gradients[0].dtype, torch.float64):
        grad = derivative(call, wide)
        of_weight = torch.nn.grad.conv2d_weight(call.x.to(wide), weight_shape, grad)
        plain.append((of_weight, grad.sum((0, 2, 3))))
    for k, ours in enumerate((call.grad_weight, call.grad_bias)):
        if ours is not None:
            assert_within_budget(ours, plain[0][k], plain[1][k], ("weight", "bias")[k])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "weight_shape"), CASES, ids=str)
def test_gradient_of_weight(shape, weight_shape, dtype):
    for asked, wide, tanh in [((True, False), True, False), ((True, True), False, True)]:
        call = weight_call(shape, weight_shape, dtype, asked=asked, wide=wide, tanh=tanh)
        rows.gradient_of_weight([call], 0, 1)
        check_weight(call, weight_shape)


def test_gradient_of_bias_alone():
    call = weight_call(*CASES[0], torch.float32, asked=(False, True))
    rows.gradient_of_weight([call], 0, 1)
    check_weight(call, CASES[0][1])


@pytest.mark.parametrize("inner", [16, 64])
def test_blocks_of_pixels(inner, monkeypatch):
    small = cut.Tiles(16, 32, inner, 4, 1)
    monkeypatch.setattr(cut, "TILES", dict.fromkeys(cut.TILES, small))
    heights = []
    for shape in [(3, 16, 5, 18), (5, 16, 9, 6)]:
        weight_shape = (16, 16, 3, 3)
        call = weight_call(shape, weight_shape, torch.float32)
        split = cut.split(call.grad_y.shape, weight_shape, small)
        assert split.splits > 1
        heights.append(split.height)
        rows.gradient_of_weight([call], 0, 1)
        check_weight(call, weight_shape)
    assert heights == ([1, 4] if inner == 16 else [4, 8])


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_two_weight_calls_are_each_alone(dtype):
    for tanh in (False, True):
        together = [weight_call(*TWO, dtype, seed, tanh=tanh) for seed in (0, 5)]
        alone = [weight_call(*TWO, dtype, seed, tanh=tanh) for seed in (0, 5)]
        rows.gradient_of_weight(together, 0, 1)
        for ours, one in zip(together, alone, strict=True):
            rows.gradient_of_weight([one], 0, 1)
            assert torch.equal(ours.grad_weight, one.grad_weight)
            assert torch.equal(ours.grad_bias, one.grad_bias)
