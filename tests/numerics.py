# SPDX-License-Identifier: MIT
"""The one error budget of the test suite, and the band around kinks.

Truth is float64. Against it, our error may be at most twice that of eager PyTorch in the same
dtype, plus two units in the last place at the largest magnitude of the truth. At a kink (ReLU at
0, |a - b| at 0) a rounding flips the derivative, so elements inside a narrow band are compared by
the number and the balance of their flips instead (HOUSE: "kink band").
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = {
    torch.float16: 2.0**-10,
    torch.bfloat16: 2.0**-7,
    torch.float32: 2.0**-23,
    torch.float64: 2.0**-52,
}


def max_error(value: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """Largest absolute difference to the truth, over all elements or those chosen; nan counts."""
    difference = (value.detach().double() - truth.detach().double()).abs()
    if where is not None:
        difference = difference[where]
    if difference.numel() == 0:
        return 0.0
    return float("inf") if bool(difference.isnan().any()) else difference.max().item()


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether all elements are equal, nan to nan."""
    nan = torch.equal(a.isnan(), b.isnan())
    return nan and torch.equal(a.nan_to_num(7.0, 8.0, 9.0), b.nan_to_num(7.0, 8.0, 9.0))


def largest(x: Tensor) -> float:
    """The largest finite magnitude."""
    return torch.where(x.isfinite(), x.abs(), 0.0).max().item() if x.numel() else 0.0


def floor(truth: Tensor, dtype: torch.dtype, terms: float = 0.0) -> float:
    """Two units in the last place at the largest magnitude of the truth, or of its terms.

    Below the smallest normal number the last place is as large as there. For float64 the truth is
    rounded as much as ours is: 2^9 units stand for both.
    """
    largest = truth.detach().abs().max().item() if truth.numel() else 0.0
    units = 2**9 if dtype == torch.float64 else 2
    return units * EPS[dtype] * max(largest, terms, torch.finfo(dtype).tiny)


def assert_within_budget(
    ours: Tensor,
    eager: Tensor,
    truth: Tensor,
    name: str,
    *,
    where: Tensor | None = None,
    eager_where: Tensor | None = None,
    terms: float = 0.0,
) -> None:
    """Fail unless our error is within the budget.

    Args:
        ours: the result under test; its dtype sets the floor.
        eager: eager PyTorch's result in the same dtype.
        truth: float64.
        name: what is compared, for the message.
        where: elements of ours to compare (default all).
        eager_where: elements from which eager's error is taken (default all): at a kink eager
            itself may be far off, and would widen the budget for everything.
        terms: largest magnitude among terms that cancel in the truth, whose rounding stays: the
            gradient of a norm over two pixels is zero but for the last place of its terms.
    """
    assert ours.shape == truth.shape, f"{name}: shape {tuple(ours.shape)}, not {tuple(truth.shape)}"
    assert ours.dtype == eager.dtype, f"{name}: dtype {ours.dtype}, eager has {eager.dtype}"
    error = max_error(ours, truth, where)
    bound = 2 * max_error(eager, truth, eager_where) + floor(truth, ours.dtype, terms)
    assert error <= bound, f"{name}: error {error:.3g} above the budget {bound:.3g}"


def assert_flips_balanced(derivative: Tensor, truth: Tensor, band: Tensor, name: str) -> None:
    """Inside the band, derivatives may flip, but rarely and evenly to both sides.

    Args:
        derivative: the result's sign or mask, as numbers.
        truth: the same in float64.
        band: the elements near the kink.
        name: what is compared, for the message.
    """
    difference = (derivative.double() - truth.double())[band]
    flips = int((difference != 0).sum())
    # A fair coin leaves this interval once in 10^7 draws; one or two flips prove nothing.
    allowed = 5.3 * max(flips, 1) ** 0.5 + 2
    balance = abs(int((difference > 0).sum()) - int((difference < 0).sum()))
    assert balance <= allowed, f"{name}: {flips} flips at the kink, unbalanced by {balance}"
