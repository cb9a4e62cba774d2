# SPDX-License-Identifier: MIT
"""The repaired interpreter sees what is wrong with a kernel, and rounds as the hardware does."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from cyclegan_fast.ops import _triton

pytestmark = pytest.mark.skipif(not _triton.INTERPRETED, reason="kernels run on the GPU")


@triton.jit
def copy_kernel(x_ptr, y_ptr, n, MASKED: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * STEP + tl.arange(0, BLOCK)
    mask = (offs < n) | (not MASKED)
    tl.store(y_ptr + offs, tl.load(x_ptr + offs, mask=mask, other=0), mask=mask)


def copy(x, y, *, masked=True, step=16, programs=None):
    programs = programs or triton.cdiv(x.numel(), step)
    copy_kernel[(programs,)](x, y, x.numel(), MASKED=masked, STEP=step, BLOCK=16)


def test_a_right_kernel_passes():
    x = torch.randn(37)
    y = torch.empty_like(x)
    copy(x, y)
    assert torch.equal(x, y)
    copy(x, y)  # what the launch before wrote is no race


def test_a_dropped_mask_is_seen():
    with pytest.raises(InterpreterError, match="11 of 16 addresses read by program 2 lie outside"):
        copy(torch.randn(37), torch.empty(37), masked=False)


def test_the_bounds_are_the_views_own_not_its_storages():
    x = torch.randn(64)[:37]
    with pytest.raises(InterpreterError, match="outside"):
        copy(x, torch.empty(48), masked=False)


def test_two_programs_that_write_one_element_are_seen():
    with pytest.raises(
        InterpreterError, match=r"race: program 1 writes what programs \[0\] touched"
    ):
        copy(torch.randn(32), torch.empty(32), step=8, programs=2)


def test_reading_what_another_program_writes_is_seen():
    x = torch.zeros(48)
    with pytest.raises(InterpreterError, match="race: program 1"):
        copy(x[:32], x[16:], programs=2)


@triton.jit
def same_element_kernel(y_ptr, BLOCK: tl.constexpr):
    tl.store(y_ptr + tl.arange(0, BLOCK) // 2, tl.arange(0, BLOCK).to(tl.float32))


def test_two_lanes_that_write_one_element_are_seen():
    with pytest.raises(InterpreterError, match="twice in one store"):
        same_element_kernel[(1,)](torch.empty(8), BLOCK=16)


@triton.jit
def atomic_kernel(y_ptr):
    tl.atomic_add(y_ptr, 1.0)


def test_atomics_are_refused():
    with pytest.raises(InterpreterError, match="atomics"):
        atomic_kernel[(1,)](torch.zeros(1))


@triton.jit
def far_kernel(y_ptr, stride):
    tl.store(y_ptr, (tl.program_id(0) + 1) * stride)


def test_an_offset_of_32_bits_that_overflows_is_seen():
    y = torch.zeros(1, dtype=torch.int64)
    far_kernel[(1,)](y, 2**31 - 1)
    assert y.item() == 2**31 - 1
    with pytest.raises(InterpreterError, match="mul overflows int32"):
        far_kernel[(2,)](y, 2**30)
    with pytest.raises(InterpreterError, match="mul overflows int32"):
        far_kernel[(3,)](y, -(2**30) - 1)


@triton.jit
def square_kernel(x_ptr, y_ptr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    if WIDE:
        x = x.to(tl.float32)
    tl.store(y_ptr + tl.arange(0, BLOCK), x * x)


def test_bfloat16_rounds_to_nearest_even():
    x = torch.randn(4096).bfloat16()
    x[:4] = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.0])
    y = torch.empty_like(x)
    square_kernel[(1,)](x, y, WIDE=True, BLOCK=4096)
    assert torch.equal(y.nan_to_num(1e4), x.float().square().bfloat16().nan_to_num(1e4))


def test_bfloat16_arithmetic_is_refused():
    x = torch.randn(16).bfloat16()
    with pytest.raises(InterpreterError, match="arithmetic on bfloat16"):
        square_kernel[(1,)](x, torch.empty_like(x), WIDE=False, BLOCK=16)


@triton.jit
def dot_kernel(a_ptr, b_ptr, c_ptr, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(c_ptr + at, tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dot_multiplies_values(dtype):
    a, b = torch.randn(2, 32, 32).to(dtype)
    c = torch.empty(32, 32)
    dot_kernel[(1,)](a, b, c, N=32)
    torch.testing.assert_close(c, a.float() @ b.float(), rtol=1e-5, atol=1e-5)
