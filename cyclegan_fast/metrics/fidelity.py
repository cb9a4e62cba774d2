# SPDX-License-Identifier: MIT
"""PSNR and SSIM: how near a picture is to the true one. Both need pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["psnr", "ssim"]

RANGE = 2.0  # from -1 to 1
_WINDOW, _SIGMA = 11, 1.5  # Wang et al. 2004, section III-C, and K1, K2 of III-B
_K1, _K2 = 0.01, 0.03


@torch.no_grad()
def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels, averaged over the pictures.

        psnr = mean over n of 10 log10(2^2 / mse_n),  mse_n = mean over C, H, W of (x - y)^2

    Args:
        x: [N, C, H, W], any floating dtype and layout, values in [-1, 1].
        y: the same shape.

    Returns:
        0-d float64; infinite when a picture equals its truth.

    Raises:
        ValueError: shapes differ, or are not [N, C, H, W] with N > 0.

    Gradients: none.
    """
    x, y = _checked("psnr", x, y)
    error = (x - y).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(RANGE**2 / error)).mean()


@torch.no_grad()
def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity, averaged over windows, channels and pictures.

        ssim = (2 mx my + c1)(2 sxy + c2) / ((mx^2 + my^2 + c1)(sx^2 + sy^2 + c2))

    with Gaussian-weighted means m, variances s^2 and covariance sxy of 11 x 11 windows
    (sigma 1.5) that lie wholly inside the picture, c1 = (0.01 * 2)^2, c2 = (0.03 * 2)^2.

    Args:
        x: [N, C, H, W], any floating dtype and layout, values in [-1, 1]; H, W >= 11.
        y: the same shape.

    Returns:
        0-d float64, at most 1; 1 for equal pictures.

    Raises:
        ValueError: shapes differ, are not [N, C, H, W] with N > 0, or a side is below 11.

    Gradients: none. Reference: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from
    error visibility to structural similarity", IEEE TIP 13(4), 2004.
    """
    x, y = _checked("ssim", x, y)
    if min(x.shape[2:]) < _WINDOW:
        raise ValueError(f"ssim: H and W must be at least {_WINDOW}, got {tuple(x.shape)}")
    mean_x, mean_y = _blur(x), _blur(y)
    # Centred once by the picture's mean: the differences below lose fewer digits.
    shift_x, shift_y = (z.mean(dim=(2, 3), keepdim=True) for z in (x, y))
    dx, dy = x - shift_x, y - shift_y
    ex, ey = mean_x - shift_x, mean_y - shift_y
    var_x, var_y = _blur(dx * dx) - ex * ex, _blur(dy * dy) - ey * ey
    cov = _blur(dx * dy) - ex * ey
    c1, c2 = (_K1 * RANGE) ** 2, (_K2 * RANGE) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * (2 * cov + c2) / (var_x + var_y + c2)).mean()


def _checked(name: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape or x.dim() != 4 or x.numel() == 0:
        got = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"{name}: x and y must be [N, C, H, W] of one shape with N > 0, got {got}")
    return x.double(), y.double()


def _blur(x: Tensor) -> Tensor:
    offset = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    weights = torch.exp(-offset.square() / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    planes = x.reshape(-1, 1, *x.shape[2:])
    planes = F.conv2d(planes, weights.view(1, 1, -1, 1))
    planes = F.conv2d(planes, weights.view(1, 1, 1, -1))
    return planes.view(*x.shape[:2], *planes.shape[2:])
