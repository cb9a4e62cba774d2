# SPDX-License-Identifier: MIT
"""Calls of reflect_conv2d over rows, and what they must have written."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from numerics import assert_within_budget

from cyclegan_fast.ops.reflect_conv2d import triton_rows as rows
from cyclegan_fast.ops.reflect_conv2d import triton_rows_tiles as cut
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight


def drawn(shape, dtype, seed, scale=1.0, centre=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + centre
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def empty(shape, dtype):
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


def operands(shape, weight_shape, dtype, seed=0, centre=0.5):
    fan = weight_shape[1] * weight_shape[2] * weight_shape[3]
    x = drawn(shape, dtype, seed, centre=centre)
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


def weight_call(
    shape,
    weight_shape,
    dtype,
    seed=0,
    wide=False,
    asked=(True, True),
    tanh=False,
    groups=1,
    centre=0.5,
):
    """The gradients of a weight and a bias, in float32 if wide; of several layers if groups."""
    x, _, _ = operands(shape, weight_shape, dtype, seed, centre)
    out_channels, channels, *kernel = weight_shape
    out_shape = (shape[0], out_channels, shape[2] - kernel[0] + 1, shape[3] - kernel[1] + 1)
    grad_y = drawn(out_shape, dtype, seed + 3)
    y = drawn(out_shape, dtype, seed + 4).tanh() if tanh else None
    of = torch.float32 if wide else dtype
    grad_weight = torch.empty(groups, out_channels, *kernel, channels, dtype=of)
    grad_weight = grad_weight.permute(0, 1, 4, 2, 3)
    grad_bias = torch.empty(groups, out_channels, dtype=of)
    if groups == 1:
        grad_weight, grad_bias = grad_weight[0], grad_bias[0]
    work = torch.empty(rows.workspace(grad_y.shape, weight_shape, groups))
    wanted = (g if need else None for g, need in zip((grad_weight, grad_bias), asked, strict=True))
    return OfWeight(grad_y, y, x, *wanted, work, groups=groups)


def layer_of(call, k):
    """The call of one layer of several: a part of what they read, and memory of its own."""
    read = [None if t is None else t.chunk(call.groups)[k] for t in call[:3]]
    of_weight, of_bias = call.grad_weight, call.grad_bias
    if call.groups > 1:
        of_weight, of_bias = of_weight[k], of_bias[k]
    work = torch.empty(rows.workspace(read[0].shape, of_weight.shape))
    return OfWeight(*read, torch.empty_like(of_weight), torch.empty_like(of_bias), work)


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
