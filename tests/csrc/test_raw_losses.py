# SPDX-License-Identifier: MIT
"""l1_loss and lsgan_loss, raw, on the CPU against float64 formulas written out here."""

from __future__ import annotations

import math

import pytest
import torch
from raw_calls import DTYPES, LAYOUTS, Guarded, accumulator, assert_near, ops, placed

# Below a vector, below a chunk, a chunk and one more, many chunks with a tail.
SIZES = [(1,), (3,), (2, 17), (4096,), (1, 1, 4097, 1), (5, 3, 70, 61)]
TARGETS = ("tensor", 1.0, 0.0, 0.9)


def operands(shape, dtype: torch.dtype, layout: str = "contiguous"):
    """Two tensors off centre, equal in every fifth element: the kink of the absolute value."""
    torch.manual_seed(3)
    a, b = (torch.randn(shape, dtype=torch.float64).to(dtype) + 3 for _ in range(2))
    b.view(-1)[::5] = a.view(-1)[::5]
    return placed(a, layout), placed(b, layout)


def sized_workspace(numel: int, dtype: torch.dtype) -> Guarded:
    return Guarded((ops.loss_workspace(numel),), accumulator(dtype))


def l1(a, b, sign=None):
    loss, work = Guarded((), accumulator(a.dtype)), sized_workspace(a.numel(), a.dtype)
    ops.l1_loss_fwd(a, b, loss.tensor, sign, work.tensor)
    work.check_margins("workspace")
    return loss.check("loss")


def lsgan(pred, target):
    tensor, value = (target, 0.0) if isinstance(target, torch.Tensor) else (None, target)
    loss, work = Guarded((), accumulator(pred.dtype)), sized_workspace(pred.numel(), pred.dtype)
    ops.lsgan_loss_fwd(pred, tensor, value, loss.tensor, work.tensor)
    work.check_margins("workspace")
    return loss.check("loss")


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_l1_value(shape, dtype):
    a, b = operands(shape, dtype)
    assert_near(l1(a, b), (a.double() - b.double()).abs().mean(), "loss")


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("with_a", "with_b"), [(True, False), (False, True), (True, True)])
def test_l1_gradient(shape, dtype, with_a, with_b):
    a, b = operands(shape, dtype)
    grad_loss = torch.tensor(-1.7 * a.numel(), dtype=accumulator(dtype))
    grads = [Guarded(shape, dtype) if wanted else None for wanted in (with_a, with_b)]
    signs = Guarded(shape, torch.int8)
    assert torch.equal(l1(a, b, signs.tensor), l1(a, b)), "the loss with and without the signs"
    assert torch.equal(signs.check("sign"), (a.double() - b.double()).sign().char())
    ops.l1_loss_bwd(grad_loss, signs.tensor, *(None if g is None else g.tensor for g in grads))
    truth = grad_loss.double() * (a.double() - b.double()).sign() / a.numel()
    for sign, name, grad in zip((1, -1), ("grad_a", "grad_b"), grads, strict=True):
        if grad is not None:
            assert_near(grad.check(name), sign * truth, name)
            assert torch.equal(grad.tensor == 0, a == b), f"{name}: sign(0) is 0"


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_lsgan_value(shape, dtype, target):
    pred, tensor = operands(shape, dtype)
    against = tensor if target == "tensor" else target
    difference = pred.double() - (tensor.double() if target == "tensor" else target)
    assert_near(lsgan(pred, against), difference.square().mean(), "loss")


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("with_pred", "with_target"), [(True, False), (False, True), (True, True)])
def test_lsgan_gradient(shape, dtype, target, with_pred, with_target):
    pred, tensor = operands(shape, dtype)
    grad_loss = torch.tensor(0.6 * pred.numel(), dtype=accumulator(dtype))
    grads = [Guarded(shape, dtype) if wanted else None for wanted in (with_pred, with_target)]
    ops.lsgan_loss_bwd(
        grad_loss,
        pred,
        tensor if target == "tensor" else None,
        0.0 if target == "tensor" else target,
        *(None if g is None else g.tensor for g in grads),
    )
    difference = pred.double() - (tensor.double() if target == "tensor" else target)
    truth = grad_loss.double() * 2 * difference / pred.numel()
    for sign, name, grad in zip((1, -1), ("grad_pred", "grad_target"), grads, strict=True):
        if grad is not None:
            assert_near(grad.check(name), sign * truth, name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_one_memory_order_is_read_flat(layout):
    a, b = operands((2, 5, 7, 9), torch.float32, layout)
    assert_near(l1(a, b), (a.double() - b.double()).abs().mean(), "l1_loss")
    assert_near(lsgan(a, b), (a.double() - b.double()).square().mean(), "lsgan_loss")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_is_not_lost(dtype):
    a, b = operands((9000,), dtype)
    a[8999] = float("nan")
    assert math.isnan(raw_loss(a, b)) and math.isnan(raw_loss(a, b, least_squares=True))
    sign = torch.full((9000,), 7, dtype=torch.int8)
    assert math.isnan(raw_loss(a, b, sign))
    assert sign[8999] == 0, "as PyTorch's own gradient"
    grad = Guarded((9000,), dtype)
    nan = torch.full((), float("nan"), dtype=accumulator(dtype))
    ops.l1_loss_bwd(nan, sign, grad.tensor, None)
    assert grad.tensor.isnan().all()


def raw_loss(a, b, sign=None, least_squares: bool = False) -> float:
    loss = torch.zeros((), dtype=accumulator(a.dtype))
    work = sized_workspace(a.numel(), a.dtype).tensor
    if least_squares:
        ops.lsgan_loss_fwd(a, b, 0.0, loss, work)
    else:
        ops.l1_loss_fwd(a, b, loss, sign, work)
    return loss.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_on_any_number_of_threads(dtype):
    before = torch.get_num_threads()
    a, b = operands((1, 3, 401, 211), dtype)
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            grad, sign = Guarded(a.shape, dtype), torch.empty_like(a, dtype=torch.int8)
            loss = l1(a, b, sign)
            ops.l1_loss_bwd(torch.ones((), dtype=torch.float32), sign, grad.tensor, None)
            results.append((loss, lsgan(a, b), grad.check("grad_a")))
        for result in results[1:]:
            assert all(torch.equal(x, y) for x, y in zip(result, results[0], strict=True))
    finally:
        torch.set_num_threads(before)
