# SPDX-License-Identifier: MIT
"""Calls of the raw compiled ops on the CPU: poisoned memory around everything, float64 truth."""

from __future__ import annotations

import torch
from numerics import EPS
from torch import Tensor

from cyclegan_fast import _extension

assert _extension.available(), _extension.why_not()
ops = torch.ops.cyclegan_fast_C

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LAYOUTS = ("contiguous", "channels_last")
MARGIN = 64  # elements before and after a tensor that nobody may touch


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class Guarded:
    """A tensor in the midst of guards, that can tell whether its surroundings were written.

    Guards are NaN, and 127 for a tensor of signs.
    """

    def __init__(self, shape, dtype: torch.dtype, layout: str = "contiguous") -> None:
        numel = int(torch.Size(shape).numel())
        guard = float("nan") if dtype.is_floating_point else 127
        self._storage = torch.full((numel + 2 * MARGIN,), guard, dtype=dtype)
        inner = self._storage[MARGIN : MARGIN + numel]
        if layout == "channels_last":
            n, c, h, w = shape
            self.tensor = inner.view(n, h, w, c).permute(0, 3, 1, 2)
        else:
            self.tensor = inner.view(shape)

    def check_margins(self, name: str) -> None:
        """Fail if an element outside the tensor was written."""
        outside = torch.cat([self._storage[:MARGIN], self._storage[-MARGIN:]])
        assert bool(_is_guard(outside).all()), f"{name}: written outside its memory"

    def check(self, name: str) -> Tensor:
        """Return the tensor; fail if an element was left out or one outside was written."""
        self.check_margins(name)
        assert not bool(_is_guard(self.tensor).any()), f"{name}: not written everywhere"
        return self.tensor


def _is_guard(x: Tensor) -> Tensor:
    return x.isnan() if x.is_floating_point() else x == 127


def placed(values: Tensor, layout: str = "contiguous") -> Tensor:
    """A copy of the values with NaN before and after it."""
    guarded = Guarded(values.shape, values.dtype, layout)
    return guarded.tensor.copy_(values)


def strided(values: Tensor, kind: str) -> Tensor:
    """The values in the memory order that `kind` names, NaN between them."""
    n, c, h, w = values.shape
    if kind in LAYOUTS:
        return placed(values, kind)
    if kind == "every other":
        buffer = Guarded((n, c, 2 * h, 3 * w), values.dtype).tensor
        return buffer[:, :, ::2, ::3].copy_(values)
    if kind == "transposed":
        return placed(values.permute(3, 1, 0, 2)).permute(2, 1, 3, 0)
    layout = kind.removeprefix("interior ")
    buffer = Guarded((n, c, h + 2, w + 4), values.dtype, layout).tensor
    return buffer[:, :, 1:-1, 2:-2].copy_(values)


STRIDED = ("interior contiguous", "interior channels_last", "every other", "transposed", *LAYOUTS)


def padded(x: Tensor, pad: int) -> Tensor:
    """The reflection pad by indexing: right for every pad below the side, sides of one too."""

    def source(size: int) -> Tensor:
        position = torch.arange(-pad, size + pad).abs()
        return (size - 1) - ((size - 1) - position).abs()

    return x[:, :, source(x.shape[2])][:, :, :, source(x.shape[3])]


def folded(grad_y: Tensor, pad: int, shape) -> Tensor:
    """The adjoint of `padded`, by autograd."""
    x = torch.zeros(shape, dtype=grad_y.dtype, requires_grad=True)
    return torch.autograd.grad(padded(x, pad), x, grad_y)[0]


def assert_near(ours: Tensor, truth: Tensor, name: str, terms: float = 0.0) -> None:
    """Two units in the last place at the truth's largest value, plus the terms' own rounding.

    Args:
        ours: the result.
        truth: float64.
        name: for the message.
        terms: the largest value that cancels on the way; eight units of the accumulator's last
            place are granted to it. A float64 truth is as inexact as ours: 64 times as many.
    """
    largest = truth.abs().max().item() if truth.numel() else 0.0
    units = 64 if ours.dtype == torch.float64 else 1
    bound = units * (
        2 * EPS[ours.dtype] * largest + 8 * EPS[accumulator(ours.dtype)] * max(terms, largest)
    )
    bound += torch.finfo(ours.dtype).tiny * EPS[ours.dtype]  # float16 ends at 6e-8
    error = (ours.double() - truth).abs().max().item() if truth.numel() else 0.0
    assert error <= bound, f"{name}: error {error:.3g} above {bound:.3g}"


def workspace(x: Tensor, layout: str) -> Guarded:
    size = ops.instance_norm_act_workspace(*x.shape, layout == "channels_last", "cpu")
    return Guarded((size,), accumulator(x.dtype))
