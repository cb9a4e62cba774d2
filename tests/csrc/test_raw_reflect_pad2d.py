# SPDX-License-Identifier: MIT
"""reflect_pad2d on the CPU: forward and copy bit for bit, backward against float64."""

from __future__ import annotations

import pytest
import torch
from raw_calls import (
    DTYPES,
    LAYOUTS,
    STRIDED,
    Guarded,
    assert_near,
    folded,
    ops,
    padded,
    placed,
    strided,
)

SHAPES = [
    ((2, 3, 5, 7), 4),
    ((1, 70, 9, 33), 1),
    ((2, 16, 8, 8), 0),
    ((1, 5, 2, 2), 1),
    ((1, 1, 3, 40), 2),
    ((1, 33, 70, 18), 3),
    ((1, 4, 1, 300), 0),
    ((0, 4, 6, 6), 1),
]


@pytest.mark.parametrize(("shape", "pad"), SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward_copies_bit_for_bit(dtype, layout, shape, pad):
    n, c, h, w = shape
    x = torch.randn(shape, dtype=torch.float64).to(dtype)
    if x.numel():
        # What arithmetic would not keep: the smallest number, infinity, minus zero.
        x.view(-1)[:3] = torch.tensor([torch.finfo(dtype).smallest_normal / 4, torch.inf, -0.0])
    y = Guarded((n, c, h + 2 * pad, w + 2 * pad), dtype, layout)
    ops.reflect_pad2d_fwd(placed(x, layout), pad, y.tensor)
    bits = torch.int64 if dtype == torch.float64 else {2: torch.int16, 4: torch.int32}[x.itemsize]
    assert torch.equal(y.check("y").view(bits), padded(x, pad).view(bits))


@pytest.mark.parametrize(("shape", "pad"), SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_backward_is_the_adjoint(dtype, layout, shape, pad):
    n, c, h, w = shape
    grad_y = torch.randn(n, c, h + 2 * pad, w + 2 * pad, dtype=torch.float64).to(dtype)
    grad_x = Guarded(shape, dtype, layout)
    ops.reflect_pad2d_bwd(placed(grad_y, layout), pad, grad_x.tensor)
    assert_near(grad_x.check("grad_x"), folded(grad_y.double(), pad, shape), "grad_x")


@pytest.mark.parametrize(("shape", "pad"), SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", STRIDED)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_copy_takes_any_strides_and_rounds_as_pytorch_does(dtype, kind, layout, shape, pad):
    n, c, h, w = shape
    x = torch.randn(shape, dtype=torch.float64).to(dtype)
    for to in DTYPES:
        if (to == torch.float64) == (dtype == torch.float64):
            y = Guarded((n, c, h + 2 * pad, w + 2 * pad), to, layout)
            ops.reflect_pad2d_copy(strided(x, kind), pad, y.tensor)
            assert torch.equal(y.check("y"), padded(x, pad).to(to)), to


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_on_any_number_of_threads(layout):
    before = torch.get_num_threads()
    shape = (1, 20, 131, 67)
    x, grad_y = placed(torch.randn(shape), layout), placed(torch.randn(1, 20, 137, 73), layout)
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y, grad_x = Guarded(grad_y.shape, x.dtype, layout), Guarded(shape, x.dtype, layout)
            copy = Guarded(grad_y.shape, torch.bfloat16, layout)
            ops.reflect_pad2d_copy(x, 3, copy.tensor)
            ops.reflect_pad2d_fwd(x, 3, y.tensor)
            ops.reflect_pad2d_bwd(grad_y, 3, grad_x.tensor)
            results.append((y.check("y"), grad_x.check("grad_x"), copy.check("copy")))
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))
    finally:
        torch.set_num_threads(before)
