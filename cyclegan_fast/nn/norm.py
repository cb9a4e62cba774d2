# SPDX-License-Identifier: MIT
from __future__ import annotations

import torch
from torch import Tensor, nn

from cyclegan_fast.ops import instance_norm_act
from cyclegan_fast.ops.instance_norm_act.autograd import ACTIVATIONS


class InstanceNormAct2d(nn.Module):
    """Instance norm, activation, residual addition and reflection pad as one layer.

        y = reflect_pad(act((x - mean) * rstd * weight + bias) + residual, pad)

    Its state dict is that of torch.nn.InstanceNorm2d: "weight" and "bias" if affine, else nothing.

    Args:
        num_features: channels C.
        eps: added to the variance.
        affine: learn a scale, from 1, and a shift, from 0, per channel.
        act: "none", "relu" or "leaky_relu".
        negative_slope: slope of leaky_relu below zero.
        pad: pixels mirrored on each side of the result.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: num_features below 1, unknown act, or a negative pad.

    See :func:`cyclegan_fast.ops.instance_norm_act`.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        *,
        act: str = "relu",
        negative_slope: float = 0.2,
        pad: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(
                f"InstanceNormAct2d: num_features must be at least 1, got {num_features}"
            )
        if act not in ACTIVATIONS:
            choices = ", ".join(ACTIVATIONS)
            raise ValueError(f"InstanceNormAct2d: act must be one of {choices}, got {act!r}")
        if pad < 0:
            raise ValueError(f"InstanceNormAct2d: pad must be at least 0, got {pad}")
        self.num_features = num_features
        self.eps = eps
        self.affine = affine
        self.act = act
        self.negative_slope = negative_slope
        self.pad = pad
        for name in ("weight", "bias"):
            value = torch.empty(num_features, device=device, dtype=dtype) if affine else None
            self.register_parameter(name, None if value is None else nn.Parameter(value))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to 1 and the shift to 0."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return [N, C, H + 2 pad, W + 2 pad] from x [N, C, H, W] and a residual of its shape."""
        if x.dim() == 4 and x.shape[1] != self.num_features:
            raise ValueError(
                f"InstanceNormAct2d: x must have {self.num_features} channels, got {x.shape[1]}"
            )
        return instance_norm_act(
            x,
            self.weight,
            self.bias,
            act=self.act,
            negative_slope=self.negative_slope,
            residual=residual,
            pad=self.pad,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        """Describe the layer in a printed network."""
        slope = f", negative_slope={self.negative_slope}" if self.act == "leaky_relu" else ""
        return (
            f"{self.num_features}, eps={self.eps}, affine={self.affine}, act={self.act!r}{slope}, "
            f"pad={self.pad}"
        )
