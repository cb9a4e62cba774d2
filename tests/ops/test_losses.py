# SPDX-License-Identifier: MIT
"""l1_loss and lsgan_loss against float64, over back ends, dtypes, layouts and targets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_within_budget

from cyclegan_fast.ops import l1_loss, lsgan_loss

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1,), (7,), (2, 3, 5, 7), (1, 1, 30, 30), (4099,), (1, 3, 301, 67)]


def gradients(function, operands, scale, dtype=None):
    """Value, and gradients of scale * value in each operand that is a tensor."""
    leaves = [
        o.detach().to(dtype or o.dtype).requires_grad_() if torch.is_tensor(o) else o
        for o in operands
    ]
    loss = function(*leaves)
    tensors = [leaf for leaf in leaves if torch.is_tensor(leaf)]
    return loss, torch.autograd.grad(loss, tensors, torch.tensor(scale).to(loss))


def check(ours, eager, operands, truth=None) -> None:
    """Compare value and gradients with float64, and with eager on float32 copies of the operands.

    Eager's own loss in float32 is what a careful user runs: PyTorch's autocast computes losses so.
    """
    loss, grads = gradients(ours, operands, 1.7)
    true_loss, true_grads = gradients(truth or eager, operands, 1.7, torch.float64)
    wide = loss.dtype
    eager_loss, eager_grads = gradients(eager, operands, 1.7, wide)
    assert loss.shape == ()
    assert_within_budget(loss, eager_loss, true_loss, "loss")
    tensors = [o for o in operands if torch.is_tensor(o)]
    for o, grad, eager_grad, true_grad in zip(tensors, grads, eager_grads, true_grads, strict=True):
        assert grad.dtype == o.dtype
        assert_within_budget(grad, eager_grad.to(o.dtype), true_grad, "gradient")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_l1_equals_float64(shape, dtype, device, each_backend):
    a = (torch.randn(shape, device=device, dtype=torch.float64) + 3).to(dtype)
    b = (torch.randn(shape, device=device, dtype=torch.float64) + 3).to(dtype)
    check(l1_loss, F.l1_loss, (a, b))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("target", [1.0, 0.0, True, 0.9, "tensor"], ids=str)
def test_lsgan_equals_float64(target, shape, dtype, device, each_backend):
    pred = (torch.randn(shape, device=device, dtype=torch.float64) + 0.5).to(dtype)
    if target == "tensor":
        check(
            lsgan_loss,
            F.mse_loss,
            (pred, torch.randn(shape, device=device, dtype=torch.float64).to(dtype)),
        )
    else:
        check(
            lambda p: lsgan_loss(p, target),
            lambda p: F.mse_loss(p, torch.full_like(p, float(target))),
            (pred,),
        )


def test_l1_gradient_where_equal_is_zero(device, each_backend):
    a = torch.tensor([1.0, 2.0, 3.0], device=device, requires_grad=True)
    b = torch.tensor([1.0, 2.5, 2.5], device=device)
    (gradient,) = torch.autograd.grad(l1_loss(a, b), a)
    torch.testing.assert_close(gradient.cpu(), torch.tensor([0.0, -1 / 3, 1 / 3]))


def test_l1_at_nan_is_pytorchs(device, each_backend):
    a = torch.tensor([1.0, float("nan"), 3.0], device=device, requires_grad=True)
    b = torch.tensor([2.0, 2.0, 2.0], device=device)
    loss, plain = l1_loss(a, b), F.l1_loss(a, b)
    assert loss.isnan() and plain.isnan()
    torch.testing.assert_close(torch.autograd.grad(loss, a), torch.autograd.grad(plain, a))


@pytest.mark.parametrize("loss", [l1_loss, lsgan_loss])
def test_layouts_agree(loss, device, each_backend):
    a, b = torch.randn(2, 2, 3, 9, 10, device=device)
    strided = torch.empty(2, 3, 9, 20, device=device)[..., ::2].copy_(b)
    for left in (a, a.contiguous(memory_format=torch.channels_last)):
        for right in (b, b.contiguous(memory_format=torch.channels_last), strided):
            leaf = left.clone(memory_format=torch.preserve_format).requires_grad_()
            value = loss(leaf, right)
            (gradient,) = torch.autograd.grad(value, leaf)
            plain = a.clone().requires_grad_()
            (expected,) = torch.autograd.grad(loss(plain, b), plain)
            torch.testing.assert_close(value, loss(a, b))
            torch.testing.assert_close(gradient, expected)


def test_l1_promotes_dtypes(device, each_backend):
    a = torch.randn(2, 3, 4, 4, device=device, dtype=torch.bfloat16, requires_grad=True)
    b = torch.randn(2, 3, 4, 4, device=device)
    loss = l1_loss(a, b)
    torch.testing.assert_close(loss, F.l1_loss(a.float(), b))
    assert torch.autograd.grad(loss, a)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("loss", [l1_loss, lsgan_loss])
def test_ten_runs_give_the_same_bits(loss, device, each_backend):
    a, b = torch.randn(2, 100_003, device=device)
    first = loss(a, b)
    assert all(torch.equal(first, loss(a, b)) for _ in range(9))


@pytest.mark.parametrize("loss", [l1_loss, lsgan_loss])
def test_gradcheck(loss, device, each_backend):
    a, b = torch.randn(2, 3, 5, dtype=torch.float64, device=device)
    inputs = (a.clone().requires_grad_(), b.clone().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


def test_opcheck(device, fused_backend):
    a, b = torch.randn(2, 2, 3, 5, 5, device=device)
    a.requires_grad_()
    ops = torch.ops.cyclegan_fast
    torch.library.opcheck(ops.l1_loss.default, (a, b, True, fused_backend))
    torch.library.opcheck(ops.l1_loss.default, (a.detach(), b, False, fused_backend))
    torch.library.opcheck(ops.lsgan_loss.default, (a, None, 1.0, fused_backend))
    torch.library.opcheck(ops.lsgan_loss.default, (a, b, 0.0, fused_backend))


def test_compiles_whole(device, each_backend):
    torch._dynamo.reset()
    a, b = torch.randn(2, 2, 3, 5, 5, device=device)

    def total(a, b):
        return 10 * l1_loss(a * 2, b) + lsgan_loss(b, True)

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a, b), total(a, b))


@pytest.mark.parametrize("loss", [l1_loss, lsgan_loss])
def test_second_derivative_is_refused_with_advice(loss, device, fused_backend):
    a = torch.randn(4, device=device, requires_grad=True)
    value = loss(a, torch.zeros(4, device=device))
    (gradient,) = torch.autograd.grad(value, a, create_graph=True)
    with pytest.raises(Exception, match=r"restore\(net\)"):
        gradient.sum().backward()


@pytest.mark.parametrize("loss", [l1_loss, lsgan_loss])
@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (torch.zeros(3), torch.zeros(4), ValueError, r"shape \(3,\), got \(4,\)"),
        (torch.zeros(0), torch.zeros(0), ValueError, "at least one element"),
        (torch.zeros(3, dtype=torch.int32), torch.zeros(3), TypeError, "must be float16"),
        (torch.zeros(3), "real", TypeError, "must be a"),
    ],
)
def test_wrong_arguments_are_named(loss, a, b, error, message):
    with pytest.raises(error, match=message):
        loss(a, b)
