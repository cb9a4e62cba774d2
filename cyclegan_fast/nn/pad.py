# SPDX-License-Identifier: MIT
from __future__ import annotations

from torch import Tensor, nn

from cyclegan_fast.ops import reflect_pad2d


class ReflectPad2d(nn.Module):
    """Reflection padding by the same number of pixels on all four sides.

    Args:
        pad: pixels mirrored on each side.

    Raises:
        ValueError: a negative pad.

    See :func:`cyclegan_fast.ops.reflect_pad2d`.
    """

    def __init__(self, pad: int) -> None:
        super().__init__()
        if pad < 0:
            raise ValueError(f"ReflectPad2d: pad must be at least 0, got {pad}")
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H + 2 pad, W + 2 pad] from x [N, C, H, W]."""
        return reflect_pad2d(x, self.pad)

    def extra_repr(self) -> str:
        """Describe the layer in a printed network."""
        return str(self.pad)
