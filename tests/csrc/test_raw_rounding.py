# SPDX-License-Identifier: MIT
"""Rounding to float16 and bfloat16, bit for bit, seen through an op that does little else.

lsgan_loss_bwd against the target 0 is pred * (2 grad_loss / numel): one product in float32, then
the rounding under test, which must be PyTorch's.
"""

from __future__ import annotations

import pytest
import torch
from raw_calls import Guarded, ops, placed


def scaled(values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """values * factor as the compiled kernel computes it; values.numel() is a power of two."""
    grad = Guarded(values.shape, values.dtype)
    ops.lsgan_loss_bwd(factor * (values.numel() / 2), placed(values), None, 0.0, grad.tensor, None)
    grad.check_margins("grad_pred")
    return grad.tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "factor",
    # Halfway cases fall to even (1.5, 0.75), into subnormals and out of range.
    [1.0, 1.5, 0.75, -1.2345678, 1.0039062, 2.0**-9, 3.0 * 2.0**-11, 7000.0, 0.0],
)
def test_every_number_is_rounded_as_pytorch_rounds(dtype, factor):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    factor = torch.tensor(factor)
    truth = (every.float() * factor).to(dtype)
    ours = scaled(every, factor)
    assert torch.equal(ours.isnan(), truth.isnan())
    same = (ours.view(torch.int16) == truth.view(torch.int16)) | truth.isnan()
    if dtype == torch.bfloat16:
        # The AVX-512 instruction takes numbers below 2^-126 for zero.
        same |= (truth.abs() <= torch.finfo(dtype).tiny) & (ours.abs() <= torch.finfo(dtype).tiny)
    assert bool(same.all()), every[~same]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7F800001, 0x7FC00000])
def test_no_nan_is_rounded_away(dtype, bits):
    # Rounded as a number, the first would carry into minus zero, the second become infinity.
    nan = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    grad = Guarded((64,), dtype)
    ops.lsgan_loss_bwd(nan, torch.ones(64, dtype=dtype), None, 0.0, grad.tensor, None)
    assert bool(grad.tensor.isnan().all())
