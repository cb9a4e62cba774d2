# SPDX-License-Identifier: MIT
"""What is left of a norm between two convolutions that do it while they load: see ops/_into.py."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops.instance_norm_act.autograd import STEM
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Moments
from cyclegan_fast.ops.reflect_conv2d.calls import Statistics, Sums
from cyclegan_fast.ops.reflect_conv2d.into import alike


@dataclass(frozen=True)
class Call:
    """A norm's statistics from moments, or its two sums from those of chunks.

    Attributes:
        operands: what is read and written.
    """

    operands: Statistics | Sums

    def alike(self, other: Any) -> bool:
        """Whether both can be one launch."""
        if not isinstance(other, Call) or type(self.operands) is not type(other.operands):
            return False
        return alike(self.operands, other.operands)

    def do(self, *beside: Call) -> None:
        """Do the call, and the one beside it in the same launch."""
        kernels = import_module("cyclegan_fast.ops.reflect_conv2d.triton_between")
        forward = isinstance(self.operands, Statistics)
        launch = kernels.statistics if forward else kernels.sums
        launch([call.operands for call in (self, *beside)])
        for _ in (self, *beside):
            backend.count(STEM if forward else f"{STEM}_backward", "triton")


def statistics_call(
    moments: Moments, plane: tuple[int, int], eps: float, mean: Tensor, rstd: Tensor
) -> Call:
    """Return the call that writes a norm's mean and rstd.

    Args:
        moments: of the norm's input.
        plane: its height and width.
        eps: added to the variance.
        mean: [N, C] float32, written.
        rstd: [N, C] float32, written.
    """
    return Call(Statistics(moments, *plane, eps, mean, rstd))


def sums_call(partial: Tensor, sums: Tensor) -> Call:
    """Return the call that writes the two sums of a norm's backward.

    Args:
        partial: [N, chunks, 2, C] float32.
        sums: [N, 2, C] float32, written.
    """
    return Call(Sums(partial, sums))
