# SPDX-License-Identifier: MIT
"""Between two convolutions: statistics and sums of planes, and a link whose norm is on load."""

from __future__ import annotations

import pytest
import torch
from conv_raw import nan_like
from numerics import assert_within_budget
from on_load_case import SLOPE, activated, layer

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.instance_norm_act import triton_kernels as norms
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as cut
from cyclegan_fast.ops.reflect_conv2d.beside_norm import (
    Moments,
    Normalised,
    NormGradient,
    NormOfInput,
)
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight, Statistics, Sums
from cyclegan_fast.ops.reflect_conv2d.triton_between import statistics, sums

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
LAST = torch.channels_last
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
EPS = 1e-5


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    for module, name, value in [
        (cut, "TILES", dict.fromkeys(cut.TILES, cut.Tiles(16, 32, 32, 4, 1))),
        (cut, "TILE_WIDTH", 4),
        (cut, "MOST_CHUNKS", 3),
        (norms, "ELEMENTS", 256),
        (_triton, "MOST_CHANNELS", 8),
    ]:
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def nans(*shape):
    return torch.full(shape, torch.nan)


def made(first, centre=0.0):
    """Results of two networks' first convolutions, with their moments."""
    calls, cover = [], first._cover("moments_cover")
    for network in range(2):
        x, weight = first.images(network)
        y = first.result(x, weight)
        bias = (first.drawn(20 + network, 1, y.shape[1], 1, 1) + centre).flatten()
        calls.append(Forward(x, weight, bias, y, nans(len(y), cover[0], 3, y.shape[1])))
    first.module.forward(calls, first.padding, first.stride, False, **first.options)
    return calls, [Moments(call.moments, *cover[1:]) for call in calls]


def statistics_of(calls, moments):
    height, width = calls[0].y.shape[2:]
    found = [
        Statistics(each, height, width, EPS, nans(*c.y.shape[:2]), nans(*c.y.shape[:2]))
        for c, each in zip(calls, moments, strict=True)
    ]
    statistics(found)
    return [(each.mean, each.rstd) for each in found]


@pytest.mark.parametrize(
    ("case", "following", "dtype", "centre"),
    [
        (
            ("reflect", (2, 3, 8, 9), (18, 3, 3, 3), 1, 1),
            ("reflect", (2, 18, 8, 9), (5, 18, 3, 3), 1, 1),
            F32,
            1000.0,
        ),
        (
            ("transposed", (1, 3, 5, 4), (3, 18, 3, 3), 1, 2),
            ("zeros", (1, 18, 10, 8), (5, 18, 4, 4), 1, 2),
            BF16,
            0.0,
        ),
        (
            ("zeros", (1, 3, 1, 1), (4, 3, 3, 3), 1, 1),
            ("transposed", (1, 4, 1, 1), (4, 3, 3, 3), 1, 2),
            F16,
            0.0,
        ),
    ],
    ids=str,
)
def test_bits_are_those_of_the_norms_kernels(case, following, dtype, centre):
    """Mean, rstd and what the next convolution makes of an image that was never written."""
    first, second = layer(case, dtype), layer(following, dtype)
    calls, moments = made(first, centre)
    pad = second.padding if following[0] == "reflect" else 0
    options = second.options if following[0] == "zeros" else {}
    for network, (call, each, (mean, rstd)) in enumerate(
        zip(calls, moments, statistics_of(calls, moments), strict=True)
    ):
        n, c, height, width = call.y.shape
        affine = second.affine(70 + network, c)
        written = nans(n, c, height + 2 * pad, width + 2 * pad).to(dtype)
        written = written.contiguous(memory_format=LAST)
        theirs = nans(n, c), nans(n, c)
        norms.instance_norm_act_finish(
            call.y, *affine, None, each.partial, each.each, each.pitch, 2, SLOPE, pad, EPS,
            written, *theirs,
        )  # fmt: skip
        assert torch.equal(mean, theirs[0]) and torch.equal(rstd, theirs[1])
        weight = second.operands(network)[1]
        padding = 0 if pad else second.padding
        images = []
        for x, norm, around in (
            (call.y, Normalised(mean, rstd, *affine, 2, SLOPE), second.padding),
            (written, None, padding),
        ):
            y = second.result(call.y, weight)
            forward = Forward(x, weight, None, y, None, norm)
            second.module.forward([forward], around, second.stride, False, **options)
            images.append(y)
        assert torch.equal(*images)


def test_sums_are_those_of_the_norms_kernels():
    n, c, chunks, height, width = 2, 11, 5, 6, 7
    generator = torch.Generator().manual_seed(1)
    calls = []
    for _ in range(2):
        partial = torch.randn(n, chunks, 2, c, generator=generator) + 0.3
        calls.append(Sums(partial, nans(n, 2, c)))
    sums(calls)
    x = torch.randn(n, c, height, width, generator=generator).contiguous(memory_format=LAST)
    for call in calls:
        truth = call.partial.double().sum(1)
        torch.testing.assert_close(call.sums.double(), truth, rtol=0, atol=2e-6)
        theirs, statistic = nans(2, n, c), torch.ones(n, c)
        norms.instance_norm_act_bwd_finish(
            x, None, x, None, None, statistic, statistic, call.partial, 0, SLOPE, 0,
            torch.empty_like(x), None, theirs,
        )  # fmt: skip
        assert torch.equal(call.sums, theirs.transpose(0, 1))
        (alone,) = [Sums(call.partial, nans(n, 2, c))]
        sums([alone])
        assert torch.equal(alone.sums, call.sums)


def link(first, second, affine, tensors, dz, wide, dtype=None):
    """Gradients of a loss of two convolutions with a norm between; dtype: of eager's roundings."""
    x, w1, w2 = (t.to(wide).requires_grad_() for t in tensors)

    def rounded(value):
        return value if dtype is None else value.to(dtype).to(wide)

    y1 = rounded(first.linear(x, w1))
    mean, var = y1.mean((2, 3), keepdim=True), y1.var((2, 3), correction=0, keepdim=True)
    weight, bias = (t.to(wide)[:, None, None] for t in affine)
    z = (y1 - mean) * ((var + EPS).rsqrt() * weight) + bias
    y2 = rounded(second.linear(rounded(activated(z, 1)), w2))
    return y2, torch.autograd.grad(y2, (x, w1, w2), dz.to(wide)), z


@pytest.mark.parametrize(
    ("case", "following", "dtype"),
    [
        (
            ("reflect", (2, 3, 6, 7), (5, 3, 3, 3), 1, 1),
            ("reflect", (2, 5, 6, 7), (4, 5, 3, 3), 1, 1),
            F32,
        ),
        (
            ("zeros", (1, 3, 8, 10), (6, 3, 4, 4), 1, 2),
            ("transposed", (1, 6, 4, 5), (6, 3, 3, 3), 1, 2),
            F32,
        ),
        (
            ("transposed", (1, 3, 4, 5), (3, 6, 3, 3), 1, 2),
            ("zeros", (1, 6, 8, 10), (4, 6, 4, 4), 1, 2),
            F32,
        ),
    ],
    ids=str,
)
def test_a_link_of_two_convolutions_and_the_norm_between(case, following, dtype):
    """Both ways without a kernel for the norm: no image of it is written."""
    first, second = layer(case, dtype), layer(following, dtype)
    calls, moments = made(first)
    (mean, rstd), _ = statistics_of(calls, moments)
    x, w1, bias, y1, *_ = calls[0]
    w2 = second.operands(0)[1]
    affine = second.affine(70, y1.shape[1])
    on_load = Normalised(mean, rstd, *affine, 1, SLOPE)
    y2 = second.result(y1, w2)
    how = (second.padding, second.stride)
    second.module.forward([Forward(y1, w2, None, y2, None, on_load)], *how, False, **second.options)
    grad_y2 = second.drawn(30, *y2.shape)

    n, c = y1.shape[:2]
    partial = nans(n, second._cover("sums_chunks"), 2, c)
    before = NormOfInput(y1, mean, rstd, *affine, 1, SLOPE, 0, None, partial, masked=True)
    dz = nan_like(y1, dtype, LAST)
    second.module.gradient_of_input(
        [OfInput(grad_y2, None, w2, dz, before)], *how, **second.options
    )
    whole = nans(n, 2, c)
    sums([Sums(partial, whole)])
    behind = NormGradient(y1, mean, rstd, affine[0], whole)
    grad_w2, grad_w1, grad_x = (nan_like(t, dtype, LAST) for t in (w2, w1, x))
    work = nans(second.module.workspace(y2.shape, w2.shape))
    second.module.gradient_of_weight(
        [OfWeight(grad_y2, None, y1, grad_w2, None, work, norm=on_load)], *how, **second.options
    )
    how = (first.padding, first.stride)
    first.module.gradient_of_input(
        [OfInput(dz, None, w1, grad_x, None, behind)], *how, **first.options
    )
    work = nans(first.module.workspace(y1.shape, w1.shape))
    first.module.gradient_of_weight(
        [OfWeight(dz, None, x, grad_w1, None, work, of_norm=behind)], *how, **first.options
    )

    # The bias before a norm changes nothing but where the moments lie.
    truth, eager = (
        link(first, second, affine, (x, w1, w2), grad_y2, wide, rounding)
        for wide, rounding in ((torch.float64, None), (F32, dtype))
    )
    assert truth[2].abs().min() > 1e-5, "a value at the kink: take another seed"
    assert_within_budget(y2, eager[0].to(dtype), truth[0], "y")
    for name, ours, plain, true in zip(
        ("x", "w1", "w2"), (grad_x, grad_w1, grad_w2), eager[1], truth[1], strict=True
    ):
        assert_within_budget(ours, plain.to(dtype), true, f"gradient of {name}")
    dzs = dz.double().sum((2, 3))
    torch.testing.assert_close(whole[:, 0].double(), dzs, rtol=0, atol=1e-5)


def test_what_is_refused():
    partial = torch.zeros(1, 2, 3, 4)
    mean = torch.zeros(1, 4)
    with pytest.raises(ValueError, match=r"mean must be float32 \[1, 4\]"):
        statistics([Statistics(Moments(partial, 8, 4), 4, 4, EPS, mean.double(), mean)])
    with pytest.raises(ValueError, match=r"partial must be float32 \[1, 2, 2, 4\]"):
        sums([Sums(partial, torch.zeros(1, 2, 4))])
    with pytest.raises(ValueError, match="at most 64 chunks"):
        sums([Sums(torch.zeros(1, 65, 2, 4), torch.zeros(1, 2, 4))])
