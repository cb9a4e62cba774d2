# SPDX-License-Identifier: MIT
"""reflect_pad2d: data movement, so equal bit for bit; its adjoint within the budget."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_within_budget

from cyclegan_fast.ops import reflect_pad2d
from cyclegan_fast.ops.reflect_conv2d import library

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# (shape, pad): the widest reflection there is, odd sizes, vector tails, many planes, no image.
CASES = [
    ((1, 1, 2, 2), 1),
    ((2, 3, 5, 7), 4),
    ((1, 37, 9, 6), 3),
    ((2, 32, 8, 8), 1),
    ((1, 70_000, 2, 3), 1),
    ((0, 3, 4, 4), 1),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("shape", "pad"), CASES, ids=str)
def test_equals_torch(shape, pad, memory_format, dtype, device, each_backend):
    if (each_backend, device) == ("triton", "cpu") and shape[1] == 70_000:
        shape = (1, 1_500, *shape[2:])  # interpreted; its grids have one dimension
    x = (
        torch.randn(shape, device=device, dtype=torch.float64)
        .to(dtype)
        .contiguous(memory_format=memory_format)
    )
    leaf = x.clone(memory_format=memory_format).requires_grad_()
    y = reflect_pad2d(leaf, pad)
    assert torch.equal(y, F.pad(x, (pad,) * 4, mode="reflect"))

    grad_y = torch.randn(y.shape, device=device, dtype=torch.float64).to(dtype)
    (gradient,) = torch.autograd.grad(y, leaf, grad_y)
    # On the CPU: the deterministic backward of some CUDA builds of PyTorch reads out of bounds
    # (pytorch#193694), and a truth must be true.
    eager, truth = (
        torch.autograd.grad(F.pad(other, (pad,) * 4, mode="reflect"), other, grad_y.to(other))[0]
        for other in (x.cpu().requires_grad_(), x.cpu().double().requires_grad_())
    )
    assert_within_budget(gradient.cpu(), eager, truth, "gradient of x")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_copy_padded_takes_any_strides_and_rounds_once(
    memory_format, dtype, device, each_backend, monkeypatch
):
    monkeypatch.setattr(library, "_pad_backend", lambda _x: each_backend)
    whole = torch.randn(2, 9, 3, 14, device=device, dtype=torch.float64).to(dtype)
    x = whole.transpose(1, 2)[..., ::2]
    expected = F.pad(x, (3,) * 4, mode="reflect")
    for to in DTYPES:
        y = torch.full((2, 3, 15, 13), torch.nan, device=device, dtype=to)
        y = y.contiguous(memory_format=memory_format)
        library.copy_padded(x, 3, y)
        assert torch.equal(y, expected.to(to)), to


def test_gradient_layouts(device, each_backend):
    x = torch.randn(2, 8, 6, 6, device=device, requires_grad=True)
    y = reflect_pad2d(x, 2)
    grad_y = torch.randn(2, 8, 10, 20, device=device)[..., ::2]
    (dense,) = torch.autograd.grad(y, x, grad_y.contiguous(), retain_graph=True)
    (strided,) = torch.autograd.grad(y, x, grad_y)
    assert torch.equal(dense, strided)
    (expanded,) = torch.autograd.grad(reflect_pad2d(x, 2).mean(), x)
    assert torch.isfinite(expanded).all()


def test_zero_pad_is_the_input(device, each_backend):
    x = torch.randn(1, 2, 3, 3, device=device)
    assert reflect_pad2d(x, 0) is x


def test_gradcheck(device, each_backend):
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, device=device, requires_grad=True)
    fast = each_backend == "triton"  # along a random direction: it is interpreted
    assert torch.autograd.gradcheck(lambda x: reflect_pad2d(x, 3), x, fast_mode=fast)


def test_opcheck(device, fused_backend):
    for x in (
        torch.randn(2, 3, 6, 6, device=device, requires_grad=True),
        torch.randn(2, 3, 6, 6, device=device).contiguous(memory_format=torch.channels_last),
    ):
        torch.library.opcheck(torch.ops.cyclegan_fast.reflect_pad2d.default, (x, 2, fused_backend))


def test_compiles_whole(device, each_backend):
    torch._dynamo.reset()
    x = torch.randn(2, 3, 6, 6, device=device)
    compiled = torch.compile(lambda x: reflect_pad2d(x + 1, 2), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), reflect_pad2d(x + 1, 2))


def test_second_derivative_is_refused_with_advice(device, fused_backend):
    x = torch.randn(1, 2, 4, 4, device=device, requires_grad=True)
    y = reflect_pad2d(x, 1)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(Exception, match=r"restore\(net\)"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("x", "pad", "error", "message"),
    [
        (torch.zeros(3, 4, 4), 1, ValueError, r"x must have shape \[N, C, H, W\]"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), 1, TypeError, "x must be float16"),
        (torch.zeros(1, 1, 4, 3), 3, ValueError, r"min\(H, W\) = 3, got 3"),
        (torch.zeros(1, 1, 4, 4), -1, ValueError, "got -1"),
        (torch.zeros(1, 1, 4, 4), True, TypeError, "pad must be an int, got bool"),
    ],
)
def test_wrong_arguments_are_named(x, pad, error, message):
    with pytest.raises(error, match=message):
        reflect_pad2d(x, pad)
