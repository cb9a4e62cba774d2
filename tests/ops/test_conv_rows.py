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
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# x and weight: odd sizes, channels off the block; a tile without a pixel; one pixel; one tap.
SHAPES = [
    ((2, 32, 6, 7), (48, 32, 3, 2)),
    ((1, 16, 3, 23), (16, 16, 1, 20)),
    ((1, 16, 4, 3), (32, 16, 4, 3)),
    ((3, 48, 3, 5), (16, 48, 1, 1)),
]
CASES = [(*SHAPES[0], dtype) for dtype in DTYPES]
CASES += [(*shapes, torch.bfloat16) for shapes in SHAPES[1:]]
TWO = ((2, 32, 5, 6), (16, 32, 2, 2))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    small = cut.Tiles(16, 32, 32, 4, 1)
    monkeypatch.setattr(cut, "TILES", dict.fromkeys(cut.TILES, small))
    monkeypatch.setattr(cut, "EACH", 32)
    monkeypatch.setattr(cut, "MOST_CHUNKS", 2)
    monkeypatch.setattr(cut, "PROGRAMS", 40)


@pytest.fixture(params=["pointers", "descriptors"])
def form(request, monkeypatch):
    """How a kernel reads its operands."""
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
    moments = torch.empty(n, chunks, 3, out_channels) if with_moments else None
    return Forward(x, weight, bias if with_bias else None, y, moments)


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_forward(shape, weight_shape, dtype, form):
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
    pixel, less, ours = call.moments.double().permute(2, 0, 3, 1)
    assert (
        ((pixel[..., None] == laid) | (laid.isnan().all(-1)[..., None] & (less == 0)[..., None]))
        .any(-1)
        .all()
    )
    spread = (m2 / each).sqrt()
    empty = laid.isnan().all(-1)
    assert ((pixel[..., None] == laid).any(-1) | empty & (pixel == 0)).all()
    spread = (m2 / each).sqrt()
    assert ((pixel + less - mean).abs() <= 1e-6 * (spread + less.abs())).all()
    assert ((ours - m2).abs() <= 2e-6 * (m2 + each * less**2)).all()


def test_moments_far_from_zero():
    call = forward_call((1, 16, 8, 9), (16, 16, 3, 3), torch.float32)
    call.bias.fill_(1000.0)
    rows.forward([call], 0, 1, False)
    check_moments(call)


def test_two_forward_calls_are_each_alone(form):
    dtype = torch.bfloat16
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


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_gradient_of_weight(shape, weight_shape, dtype, form):
    for asked, wide, tanh in [((True, False), True, False), ((True, True), False, True)]:
        call = weight_call(shape, weight_shape, dtype, asked=asked, wide=wide, tanh=tanh)
        rows.gradient_of_weight([call], 0, 1)
        check_weight(call, weight_shape)


def test_gradient_of_bias_alone():
    call = weight_call(*TWO, torch.float32, asked=(False, True))
    rows.gradient_of_weight([call], 0, 1)
    check_weight(call, TWO[1])


@pytest.mark.parametrize("inner", [16, 64])
def test_blocks_of_pixels(inner, form, monkeypatch):
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


def test_two_weight_calls_are_each_alone(form):
    dtype = torch.bfloat16
    for tanh in (False, True):
        together = [weight_call(*TWO, dtype, seed, tanh=tanh) for seed in (0, 5)]
        alone = [weight_call(*TWO, dtype, seed, tanh=tanh) for seed in (0, 5)]
        rows.gradient_of_weight(together, 0, 1)
        for ours, one in zip(together, alone, strict=True):
            rows.gradient_of_weight([one], 0, 1)
            assert torch.equal(ours.grad_weight, one.grad_weight)
            assert torch.equal(ours.grad_bias, one.grad_bias)


def input_call(shape, weight_shape, dtype, seed=0, tanh=False, norm=None):
    """The gradient of an image, and the sums of a norm of (act, pad, with all operands)."""
    _, weight, _ = operands(shape, weight_shape, dtype, seed)
    n, channels, height, width = shape
    out_channels, _, *kernel = weight_shape
    out_shape = (n, out_channels, height - kernel[0] + 1, width - kernel[1] + 1)
    grad_y = drawn(out_shape, dtype, seed + 3)
    y = drawn(out_shape, dtype, seed + 4).tanh() if tanh else None
    if norm is not None:
        norm = norm_of_input(shape, weight_shape, dtype, seed + 5, *norm)
    return OfInput(grad_y, y, weight, empty(shape, dtype), norm)


def norm_of_input(shape, weight_shape, dtype, seed, act, pad, full):
    n, channels, height, width = shape
    inner = (n, channels, height - 2 * pad, width - 2 * pad)
    x = drawn(inner, dtype, seed, centre=3.0)
    mean, rstd = (drawn((n, channels, 1, 1), torch.float32, seed + k).flatten(1) for k in (1, 2))
    rstd = rstd.abs() + 0.5
    weight, bias, skip = None, None, None
    if full:
        weight, bias = (
            drawn((channels, 1, 1, 1), torch.float32, seed + k).flatten() for k in (3, 4)
        )
        skip = drawn((n, channels, height, width), dtype, seed + 5).contiguous()
        skip = skip[:, :, pad : height - pad, pad : width - pad]
    chunks = rows.sums_chunks(shape, weight_shape, 0, 1)
    partial = torch.empty(n, chunks, 2, channels)
    return NormOfInput(x, mean + 3, rstd, weight, bias, act, 0.2, pad, skip, partial)


def check_input(call):
    plain = [
        torch.nn.grad.conv2d_input(call.grad_x.shape, call.weight.to(wide), derivative(call, wide))
        for wide in (call.grad_x.dtype, torch.float64)
    ]
    assert_within_budget(call.grad_x, *plain, "x")


def check_sums(call):
    """Of the gradient as stored, chunk by chunk."""
    norm, pad = call.norm, (call.norm.pad,) * 4
    d = norm.x.double() - norm.mean.double()[..., None, None]
    xhat = d * norm.rstd.double()[..., None, None]
    z = xhat if norm.weight is None else xhat * norm.weight.double()[:, None, None]
    z = z if norm.bias is None else z + norm.bias.double()[:, None, None]
    slope = {0: 1.0, 1: 0.0, 2: norm.negative_slope}[norm.act]
    factor = torch.where(z > 0, 1.0, slope)
    xhat, factor = (F.pad(t, pad, mode="reflect") for t in (xhat, factor))
    grad = call.grad_x.double()
    if norm.skip is not None:
        grad = grad + F.pad(norm.skip.double(), pad)
    terms = torch.stack([grad * factor, grad * factor * xhat], 1).flatten(3)
    chunks = norm.partial.shape[1]
    assert chunks <= cut.MOST_CHUNKS
    each = cut.chunks(terms.shape[-1])[1]
    terms = F.pad(terms, (0, chunks * each - terms.shape[-1]))
    terms = terms.view(*terms.shape[:3], chunks, each).permute(0, 3, 1, 2, 4)
    error = (norm.partial.double() - terms.sum(-1)).abs()
    assert (error <= 2e-6 * terms.abs().sum(-1)).all()


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_gradient_of_input(shape, weight_shape, dtype):
    for tanh in (False, True):
        call = input_call(shape, weight_shape, dtype, tanh=tanh)
        rows.gradient_of_input([call], 0, 1)
        check_input(call)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("norm", [(1, 1, False), (2, 2, True), (0, 0, True)], ids=str)
def test_sums(norm, dtype):
    call = input_call((2, 32, 8, 7), (16, 32, 3, 2), dtype, norm=norm)
    rows.gradient_of_input([call], 0, 1)
    check_input(call)
    check_sums(call)


@pytest.mark.parametrize("norm", [None, (1, 1, True), (2, 1, False)], ids=str)
def test_two_input_calls_are_each_alone(norm):
    options = {"tanh": norm is None, "norm": norm}
    together = [input_call(*TWO, torch.bfloat16, seed, **options) for seed in (0, 9)]
    alone = [input_call(*TWO, torch.bfloat16, seed, **options) for seed in (0, 9)]
    rows.gradient_of_input(together, 0, 1)
    for ours, one in zip(together, alone, strict=True):
        rows.gradient_of_input([one], 0, 1)
        assert torch.equal(ours.grad_x, one.grad_x)
        if norm is not None:
            assert torch.equal(ours.norm.partial, one.norm.partial)
