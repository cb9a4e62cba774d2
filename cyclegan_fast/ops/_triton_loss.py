# SPDX-License-Identifier: MIT
"""What losses in Triton share: how programs cover the elements, and the second stage of the sum."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton

BLOCK = 1024
MOST_PARTIALS = 1024  # what one program sums in the second stage


class Plan(NamedTuple):
    """How the first stage covers the elements."""

    partials: int  # programs, each of which leaves one sum
    chunk: int  # elements of each but the last


def plan(numel: int) -> Plan:
    """Decide from the number of elements alone, so that sums are the same on every GPU."""
    chunk = triton.cdiv(triton.cdiv(numel, BLOCK), MOST_PARTIALS) * BLOCK
    return Plan(triton.cdiv(numel, chunk), chunk)


def loss_workspace(numel: int) -> int:
    """Return how many elements of the accumulator's dtype the partial sums take."""
    return plan(numel).partials


@triton.jit
def loss_mean_kernel(
    partial_ptr,  # acc [partials]
    mean_ptr,  # acc []
    partials,
    numel,
    ACC: tl.constexpr,
    PARTIALS: tl.constexpr,  # a power of two, at least partials
):
    """The second stage: sum of the partial sums, divided by numel."""
    offs = tl.arange(0, PARTIALS)
    total = tl.sum(tl.load(partial_ptr + offs, mask=offs < partials, other=0), 0)
    tl.store(mean_ptr, total / tl.cast(numel, ACC))


def mean(partial: Tensor, numel: int, out: Tensor) -> None:
    """Write the sum of the partial sums, divided by numel, into out."""
    partials = partial.numel()
    loss_mean_kernel[(1,)](
        partial,
        out,
        partials,
        numel,
        ACC=_triton.accumulator(out),
        PARTIALS=_triton.power_of_two(partials),
    )
