# SPDX-License-Identifier: MIT
"""What a table of implementations is asked about: a layer, and a direction of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DIRECTIONS = ("forward", "gradient_of_input", "gradient_of_weight")
# What is asked of all directions at once: are the norms beside a layer done while it loads?
ON_LOAD = "norms_on_load"
KINDS = ("reflect", "zeros", "transposed")


class Layer(NamedTuple):
    """A convolution of an image.

    Attributes:
        x: [N, C, H, W]; its shape, dtype, layout and device are looked at, never its values.
        weight: [C_out, C, KH, KW], of a transposed one [C, C_out, KH, KW]; likewise.
        padding: pixels on each side.
        stride: pixels from one window to the next.
        kind: "reflect" where they are mirrored, "zeros", or "transposed".
    """

    x: Tensor
    weight: Tensor
    padding: int = 0
    stride: int = 1
    kind: str = "reflect"

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        """Of all its images."""
        return self.x.dtype

    def key(self, direction: str) -> str:
        """Return the name by which measurements know it: all that time depends on."""
        n, channels, height, width = self.x.shape
        out, kernel = self.weight.shape[self.kind == "transposed"], self.weight.shape[2:]
        return (
            f"{direction} {self.kind} {n}x{channels}x{height}x{width} to {out}, "
            f"{kernel[0]}x{kernel[1]}, padding {self.padding}, stride {self.stride}, "
            f"{str(self.dtype)[6:]}"
        )
