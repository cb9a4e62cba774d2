# SPDX-License-Identifier: MIT
"""The factored convolutions of few channels to many and back, in small tiles, against float64."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from conv_case import operands
from numerics import assert_within_budget

from cyclegan_fast.ops import _triton, reflect_conv2d_reference
from cyclegan_fast.ops.reflect_conv2d import triton_factored as factored
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
LAST = torch.channels_last
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# (x, weight, padding): many programs, one result, one channel, a kernel that is not square, the
# widest reflection there is, channels that fill no block.
CASES = [
    ((2, 3, 9, 13), (20, 3, 7, 7), 3),
    ((1, 1, 5, 7), (16, 1, 5, 3), 0),
    ((1, 4, 7, 8), (33, 4, 7, 7), 0),
    ((2, 2, 4, 5), (17, 2, 6, 8), 3),
    ((2, 20, 10, 13), (3, 20, 7, 7), 3),
    ((1, 16, 5, 4), (1, 16, 5, 4), 0),
    ((1, 40, 9, 18), (4, 40, 7, 7), 0),
    ((2, 17, 4, 4), (2, 17, 5, 6), 3),
]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(factored, "TILES", dict.fromkeys((2, 4), factored.Tiles(16, 16, 16, 4, 16, 4)))
    monkeypatch.setattr(factored, "WIDE_WIDTH", 4)
    monkeypatch.setattr(factored, "LEAST_SUM_ROWS", 3)
    monkeypatch.setattr(factored, "MOST_CHUNKS", 2)
    monkeypatch.setattr(factored, "SPLITS", 8)
    monkeypatch.setattr(factored, "SUM_BLOCK", 512)


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


def empty(*shape, dtype):
    return torch.empty(shape, dtype=dtype, memory_format=LAST)


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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "weight_shape", "padding"), CASES, ids=str)
def test_within_the_budget(shape, weight_shape, padding, dtype):
    act = "tanh" if weight_shape[0] % 2 else "none"
    given = drawn(shape, dtype, weight_shape, padding, weight_shape[0] > 1, 0)
    (ours,) = run(*given, padding, act)
    eager, truth = (plain(*given, padding, act, wide) for wide in (dtype, torch.float64))
    for values in zip(("y", "x", "weight", "bias"), ours, eager, truth, strict=False):
        assert_within_budget(*values[1:], values[0])
