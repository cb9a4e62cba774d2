# SPDX-License-Identifier: MIT
from __future__ import annotations

import torch
from torch import Tensor, nn

from cyclegan_fast.ops import reflect_conv2d
from cyclegan_fast.ops.reflect_conv2d.autograd import ACTIVATIONS


class ReflectConv2d(nn.Module):
    """Convolution of an image padded by reflection, and tanh, as one layer.

    Its parameters, their initialisation and its state dict are those of
    torch.nn.Conv2d(..., padding_mode="reflect").

    Args:
        in_channels: channels C of the input.
        out_channels: channels of the result.
        kernel_size: side of the kernel.
        stride: pixels from one window to the next.
        padding: pixels mirrored on each side.
        dilation: 1; others are not supported.
        groups: 1; others are not supported.
        bias: learn a shift per channel.
        act: "none" or "tanh".
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: groups or dilation other than 1, unknown act, or a size out of range.

    See :func:`cyclegan_fast.ops.reflect_conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        act: str = "none",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels}
        sizes |= {"kernel_size": kernel_size, "stride": stride}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"ReflectConv2d: {name} must be at least 1, got {value}")
        if padding < 0:
            raise ValueError(f"ReflectConv2d: padding must be at least 0, got {padding}")
        for name, value in (("dilation", dilation), ("groups", groups)):
            if value != 1:
                raise ValueError(f"ReflectConv2d: {name} must be 1, got {value}")
        if act not in ACTIVATIONS:
            choices = ", ".join(ACTIVATIONS)
            raise ValueError(f"ReflectConv2d: act must be one of {choices}, got {act!r}")
        self.stride = stride
        self.padding = padding
        self.act = act
        # A layer of PyTorch's draws the parameters, as it would for itself.
        drawn = nn.Conv2d(
            in_channels, out_channels, kernel_size, bias=bias, device=device, dtype=dtype
        )
        self.weight = drawn.weight
        self.bias = drawn.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out_channels, OH, OW] from x [N, in_channels, H, W]."""
        return reflect_conv2d(
            x, self.weight, self.bias, padding=self.padding, stride=self.stride, act=self.act
        )

    def extra_repr(self) -> str:
        """Describe the layer in a printed network."""
        out_channels, in_channels, *kernel_size = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, kernel_size={tuple(kernel_size)}, "
            f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}, "
            f"act={self.act!r}"
        )
