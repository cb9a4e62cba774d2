# SPDX-License-Identifier: MIT
"""The factored convolutions of few channels to many and back, in small tiles, against float64."""

from __future__ import annotations

import pytest
import torch
from conv_case import operands
from numerics import assert_within_budget

from cyclegan_fast.ops import _triton, reflect_conv2d_reference
from cyclegan_fast.ops.reflect_conv2d import triton_factored as factored
from cyclegan_fast.ops.reflect_conv2d import triton_factored_plan as plan
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
LAST = torch.channels_last
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
# (x, weight, padding, dtype): the generator's ends, many programs, one channel, one result and one
# pixel of it, kernels that are not square, the widest reflection there is, channels that fill no
# block. In 16 bits results of few channels are rolled.
CASES = [
    ((1, 3, 6, 7), (17, 3, 7, 7), 3, F32),
    ((2, 3, 9, 11), (17, 3, 7, 7), 0, BF16),
    ((1, 2, 4, 5), (16, 2, 6, 8), 3, BF16),
    ((2, 1, 5, 7), (16, 1, 5, 3), 0, F32),
    ((1, 4, 6, 9), (18, 4, 5, 5), 1, F16),
    ((1, 17, 6, 9), (3, 17, 7, 7), 3, BF16),
    ((1, 20, 11, 18), (3, 20, 7, 7), 0, F32),
    ((2, 20, 11, 18), (4, 20, 7, 7), 0, BF16),
    ((1, 17, 4, 4), (2, 17, 5, 6), 3, F32),
    ((1, 16, 5, 4), (1, 16, 5, 4), 0, F16),
]
SMALL = [((1, 3, 7, 9), (17, 3, 5, 5), 0, BF16), ((1, 17, 7, 9), (3, 17, 5, 5), 0, F32)]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    tiles = plan.Tiles(16, 16, 16, 8, 16, 4)
    for name, value in [
        ("TILES", {2: tiles, 4: tiles}),
        ("WIDE_WIDTH", 8),
        ("LEAST_SUM_ROWS", 4),
        ("MOST_CHUNKS", 2),
        ("SPLITS", 8),
        ("SUM_BLOCK", 1024),
    ]:
        monkeypatch.setattr(plan, name, value)


def drawn(shape, dtype, weight_shape, padding, bias, seed):
    """x, weight, bias, channels side by side, and the gradient of the result."""
    x, weight, b = (
        t.detach() for t in operands(shape, weight_shape, dtype, "cpu", LAST, seed=seed)
    )
    size = [n + 2 * padding - k + 1 for n, k in zip(shape[2:], weight_shape[2:], strict=True)]
    generator = torch.Generator().manual_seed(seed + 100)
    grad_y = torch.randn(shape[0], weight_shape[0], *size, generator=generator)
    return x, weight, b if bias else None, channels_last(grad_y.to(dtype))


def channels_last(x):
    """Return a copy whose channels are side by side, one channel too."""
    return torch.empty_like(x, memory_format=LAST).copy_(x)


def run(x, weight, bias, grad_y, padding, act, wide_gradients=False, other=None):
    """All results of one call, or of it and another in one launch."""
    sets = [(x, weight, bias, grad_y)] + ([] if other is None else [other])
    assert factored.why_not(x, weight, padding, 1) is None
    forwards = [Forward(a, w, b, torch.empty_like(g)) for a, w, b, g in sets]
    factored.forward(forwards, padding, 1, act == "tanh")
    ys = [f.y if act == "tanh" else None for f in forwards]
    ins = [OfInput(s[3], y, s[1], torch.empty_like(s[0])) for s, y in zip(sets, ys, strict=True)]
    factored.gradient_of_input(ins, padding, 1)
    needs = factored.workspace(grad_y.shape, weight.shape)
    dtype = torch.float32 if wide_gradients else x.dtype
    weights = [
        OfWeight(
            s[3], y, s[0], torch.empty_like(s[1], dtype=dtype),
            None if s[2] is None else torch.empty_like(s[2], dtype=dtype), torch.empty(needs),
        )
        for s, y in zip(sets, ys, strict=True)
    ]  # fmt: skip
    factored.gradient_of_weight(weights, padding, 1)
    return [
        (f.y, i.grad_x, w.grad_weight, w.grad_bias)
        for f, i, w in zip(forwards, ins, weights, strict=True)
    ]


def plain(x, weight, bias, grad_y, padding, act, dtype):
    leaves = [t.to(dtype).requires_grad_() for t in (x, weight, bias) if t is not None]
    y = reflect_conv2d_reference(*leaves, padding=padding, act=act)
    return y, *torch.autograd.grad(y, leaves, grad_y.to(dtype))


@pytest.mark.parametrize(("shape", "weight_shape", "padding", "dtype"), CASES, ids=str)
def test_within_the_budget(shape, weight_shape, padding, dtype):
    act = "tanh" if weight_shape[0] % 2 else "none"
    given = drawn(shape, dtype, weight_shape, padding, weight_shape[0] > 1, 0)
    (ours,) = run(*given, padding, act)
    eager, truth = (plain(*given, padding, act, wide) for wide in (dtype, torch.float64))
    for values in zip(("y", "x", "weight", "bias"), ours, eager, truth, strict=False):
        assert_within_budget(*values[1:], values[0])


@pytest.mark.parametrize(("case", "layout"), [(0, torch.contiguous_format), (1, LAST)])
def test_two_calls_in_one_launch_are_two_calls(case, layout):
    shape, weight_shape, padding, dtype = SMALL[case]
    sets = [list(drawn(shape, dtype, weight_shape, padding, True, seed)) for seed in (0, 1)]
    for each in sets:  # the weight in either layout, and its gradient in float32
        each[1] = each[1].contiguous(memory_format=layout)
    both = run(*sets[0], padding, "tanh", True, sets[1])
    for ours, given in zip(both, sets, strict=True):
        (alone,) = run(*given, padding, "tanh", True)
        assert all(torch.equal(a, b) for a, b in zip(ours, alone, strict=True))
        truth = plain(*given, padding, "tanh", torch.float64)
        eager = plain(*given, padding, "tanh", dtype)
        for name, *values in zip(("weight", "bias"), ours[2:], eager[2:], truth[2:], strict=True):
            assert values[0].dtype == torch.float32
            assert_within_budget(values[0].to(dtype), *values[1:], name)


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("needs", [(True, False), (False, True)], ids=str)
def test_one_gradient_of_two(case, needs):
    shape, weight_shape, padding, dtype = SMALL[case]
    x, weight, bias, grad_y = drawn(shape, dtype, weight_shape, padding, True, 0)
    wanted = [
        torch.empty_like(t) if need else None for t, need in zip((weight, bias), needs, strict=True)
    ]
    work = torch.empty(factored.workspace(grad_y.shape, weight.shape))
    factored.gradient_of_weight([OfWeight(grad_y, None, x, *wanted, work)], padding, 1)
    truth = plain(x, weight, bias, grad_y, padding, "none", torch.float64)[2:]
    eager = plain(x, weight, bias, grad_y, padding, "none", dtype)[2:]
    for ours, *values in zip(wanted, eager, truth, strict=True):
        if ours is not None:
            assert_within_budget(ours, *values, "gradient")


@pytest.mark.parametrize(("size", "dtype"), [((13, 9), F32), ((3, 4), BF16)], ids=str)
def test_moments(size, dtype):
    """Of the values as stored, far from zero, by chunks of the positions."""
    shape, weight_shape, padding = (1, 3, *size), (17, 3, 5, 5), 2
    sets = [drawn(shape, dtype, weight_shape, padding, True, seed) for seed in (0, 1)]
    sizes = torch.Size(shape), torch.Size(weight_shape)
    chunks, each, pitch = factored.moments_cover(*sizes, padding, 1)
    assert chunks == (2 if size[0] > 4 else 1) and pitch >= size[1]
    calls = [
        Forward(x, w, b + 100, torch.empty_like(g), torch.empty(1, chunks, 3, 17))
        for x, w, b, g in sets
    ]
    factored.forward(calls, padding, 1, False)
    alone = calls[1]._replace(y=torch.empty_like(calls[1].y), moments=torch.empty(1, chunks, 3, 17))
    factored.forward([alone], padding, 1, False)
    assert torch.equal(alone.y, calls[1].y) and torch.equal(alone.moments, calls[1].moments)
    for call in calls:
        rows = torch.nn.functional.pad(call.y.double(), (0, pitch - size[1]), value=float("nan"))
        for k, chunk in enumerate(rows.flatten(2).split(each, 2)):
            mean = chunk.nanmean(2)
            m2 = (chunk - mean[:, :, None]).square().nansum(2)
            origin, less, ours = call.moments[:, k].double().unbind(1)
            assert torch.equal(origin, chunk[:, :, 0])
            torch.testing.assert_close(less, mean - origin, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(ours, m2, rtol=1e-5, atol=1e-9)
        assert k == chunks - 1


@pytest.mark.parametrize(
    ("act", "pad", "full", "dtype"), [(1, 3, False, BF16), (2, 1, True, F32), (0, 0, True, F32)]
)
def test_sums_of_the_norm_before(act, pad, full, dtype):
    n, channels, height, width = shape = (2, 17, 10, 12)
    sets = [drawn(shape, dtype, (3, channels, 5, 5), 0, True, seed) for seed in (0, 1)]
    chunks = factored.sums_chunks(torch.Size(shape), torch.Size((3, channels, 5, 5)), 0, 1)
    assert chunks == 2
    inner = (n, channels, height - 2 * pad, width - 2 * pad)
    calls = [
        OfInput(grad_y, None, weight, torch.empty_like(x), norm_of(inner, act, pad, full, dtype, i))
        for i, (x, weight, _, grad_y) in enumerate(sets)
    ]
    calls = [
        c._replace(norm=c.norm._replace(partial=torch.empty(n, chunks, 2, channels))) for c in calls
    ]
    factored.gradient_of_input(calls, 0, 1)
    again = calls[1].norm._replace(partial=torch.empty(n, chunks, 2, channels))
    factored.gradient_of_input([calls[1]._replace(norm=again)], 0, 1)
    assert torch.equal(again.partial, calls[1].norm.partial)
    for call in calls:
        sums = expected_sums(call.grad_x, call.norm)
        torch.testing.assert_close(call.norm.partial.double().sum(1), sums, rtol=1e-5, atol=1e-4)


def norm_of(shape, act, pad, full, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    n, channels = shape[:2]

    def values(*sizes):
        return torch.randn(sizes, generator=generator)

    x = channels_last(values(*shape).add(3).to(dtype))
    mean, rstd = x.float().mean((2, 3)), 1 / x.float().std((2, 3))
    weight, bias = (values(channels), values(channels)) if full else (None, None)
    skip = values(*shape).to(dtype).transpose(2, 3).contiguous().transpose(2, 3) if full else None
    return NormOfInput(x, mean, rstd, weight, bias, act, 0.2, pad, skip, torch.empty(0))


def expected_sums(grad, norm):
    """What folding the padded gradient, adding the skip and differentiating the act leads to."""
    x = norm.x.double()
    xhat = (x - norm.mean.double()[:, :, None, None]) * norm.rstd.double()[:, :, None, None]
    z = xhat.clone()
    if norm.weight is not None:
        z = xhat * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
    inner = torch.zeros_like(x, requires_grad=True)
    padded = torch.nn.functional.pad(inner, (norm.pad,) * 4, mode="reflect")
    (folded,) = torch.autograd.grad(padded, inner, grad.double())
    if norm.skip is not None:
        folded = folded + norm.skip.double()
    slope = {0: 1.0, 1: 0.0, 2: norm.negative_slope}[norm.act]
    dz = torch.where(z < 0, slope * folded, folded)
    return torch.stack([dz.sum((2, 3)), (dz * xhat).sum((2, 3))], 1)


def test_what_is_not_there_is_not_read():
    """Channels, columns and taps beyond the last ones are nan in memory."""
    shape, weight_shape, padding, dtype = (1, 17, 7, 13), (3, 17, 5, 6), 0, BF16
    given = drawn(shape, dtype, weight_shape, padding, False, 0)
    x = given[0].clone()
    x[:, :, -1, -1] = float("nan")  # it belongs to the last window alone
    calls = [Forward(t, given[1], None, torch.empty_like(given[3])) for t in (given[0], x)]
    for call in calls:
        factored.forward([call], padding, 1, False)
    assert calls[1].y[:, :, -1, -1].isnan().all()
    differ = (calls[0].y != calls[1].y).any(0).any(0).nonzero().tolist()
    assert differ == [[calls[0].y.shape[2] - 1, calls[0].y.shape[3] - 1]]


@pytest.mark.parametrize(
    ("shape", "weight", "stride", "reason"),
    [
        ((1, 5, 9, 9), (16, 5, 7, 7), 1, "at most 4 channels"),
        ((1, 3, 9, 9), (15, 3, 7, 7), 1, "the other 16 to 64, got 3 and 15"),
        ((1, 3, 9, 9), (65, 3, 7, 7), 1, "the other 16 to 64, got 3 and 65"),
        ((1, 3, 9, 9), (16, 3, 7, 7), 2, "stride must be 1"),
        ((1, 3, 9, 9), (16, 3, 4, 4), 1, "5 to 7 rows"),
        ((1, 3, 9, 9), (16, 3, 8, 8), 1, "5 to 7 rows"),
        ((1, 3, 9, 9), (16, 3, 7, 9), 1, "at most 8 columns"),
    ],
    ids=str,
)
def test_what_is_not_served(shape, weight, stride, reason):
    x = channels_last(torch.zeros(shape))
    assert reason in factored.why_not(x, torch.zeros(weight), 0, stride)
    assert "channels_last" in factored.why_not(
        torch.zeros(1, 3, 9, 9), torch.zeros(16, 3, 7, 7), 0, 1
    )


def test_no_norm_beside_few_channels():
    x, weight, bias, grad_y = drawn((1, 16, 9, 9), F32, (3, 16, 5, 5), 0, True, 0)
    with pytest.raises(ValueError, match="a result of few channels has no moments"):
        factored.forward([Forward(x, weight, bias, grad_y, torch.empty(1))], 0, 1, False)
    norm = norm_of((1, 3, 9, 9), 1, 0, False, F32, 0)
    call = OfInput(x, None, weight.transpose(0, 1), torch.empty(1, 3, 13, 13), norm)
    with pytest.raises(ValueError, match="an image of few channels has been made by no norm"):
        factored.gradient_of_input([call], 0, 1)


def test_one_layer_at_a_time():
    shape, weight_shape, padding, dtype = SMALL[0]
    x, weight, bias, grad_y = drawn(shape, dtype, weight_shape, padding, True, 0)
    work = torch.empty(factored.workspace(grad_y.shape, weight.shape))
    assert factored.weight_launches(grad_y.shape, weight.shape) == 2
    call = OfWeight(grad_y, None, x, weight, bias, work, groups=2)
    for ask in (
        lambda: factored.workspace(grad_y.shape, weight.shape, 2),
        lambda: factored.weight_launches(grad_y.shape, weight.shape, 2),
        lambda: factored.gradient_of_weight([call], padding, 1),
    ):
        with pytest.raises(ValueError, match="one layer's weight, got 2 groups"):
            ask()
