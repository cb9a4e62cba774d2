# SPDX-License-Identifier: MIT
import math

import numpy as np
import pytest
import torch

from cyclegan_fast.metrics import psnr, ssim

RNG = np.random.default_rng(4)


def pictures(*shape, dtype=torch.float64) -> torch.Tensor:
    """Smooth pictures off centre: a level, a slope and noise."""
    n, c, h, w = shape
    level = RNG.uniform(-0.5, 0.8, (n, c, 1, 1))
    slope = RNG.uniform(-0.3, 0.3, (n, c, 1, 1)) * np.linspace(-1, 1, w)
    noise = 0.1 * RNG.standard_normal(shape)
    return torch.from_numpy(np.clip(level + slope + noise, -1, 1)).to(dtype)


def ssim_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """The paper's formula, window by window, with weighted sums written out."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    values = []
    planes = (z.reshape(-1, *z.shape[2:]) for z in (x, y))
    for plane_x, plane_y in zip(*planes, strict=True):
        for row in range(plane_x.shape[0] - 10):
            for column in range(plane_x.shape[1] - 10):
                a = plane_x[row : row + 11, column : column + 11]
                b = plane_y[row : row + 11, column : column + 11]
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a = (weights * (a - mean_a) ** 2).sum()
                var_b = (weights * (b - mean_b) ** 2).sum()
                cov = (weights * (a - mean_a) * (b - mean_b)).sum()
                top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
                values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(2, 3, 16, 19), (1, 1, 11, 11), (3, 1, 11, 30)])
def test_ssim_is_the_papers_formula(shape):
    x = pictures(*shape)
    y = (x + 0.1 * torch.from_numpy(RNG.standard_normal(shape)) - 0.05).clamp(-1, 1)
    expected = ssim_by_hand(x.numpy(), y.numpy())
    assert abs(ssim(x, y).item() - expected) < 1e-12
    assert 0.1 < expected < 0.99


def test_ssim_of_flat_pictures_is_the_luminance_term():
    # No variance at all, far from 0: where E[x^2] - E[x]^2 would leave rounding in place of 0.
    x, y = torch.full((1, 1, 16, 16), 0.9), torch.full((1, 1, 16, 16), -0.3)
    a, b = x[0, 0, 0, 0].double().item(), y[0, 0, 0, 0].double().item()
    expected = (2 * a * b + 4e-4) / (a * a + b * b + 4e-4)
    assert abs(ssim(x, y).item() - expected) < 1e-12


def test_ssim_of_a_picture_with_itself_is_one_and_it_is_symmetric():
    x, y = pictures(2, 3, 20, 20), pictures(2, 3, 20, 20)
    assert abs(ssim(x, x).item() - 1) < 1e-12
    assert abs(ssim(x, y).item() - ssim(y, x).item()) < 1e-14
    assert ssim(x, y).item() < 0.5


def test_psnr_is_the_mean_of_each_pictures_own():
    x = pictures(3, 3, 8, 9)
    y = x + torch.tensor([0.1, 0.2, 0.01], dtype=torch.float64).view(3, 1, 1, 1)
    expected = np.mean([10 * math.log10(4 / error**2) for error in (0.1, 0.2, 0.01)])
    assert abs(psnr(x, y).item() - expected) < 1e-9
    pooled = 10 * math.log10(4 / np.mean([0.1**2, 0.2**2, 0.01**2]))
    assert abs(expected - pooled) > 1  # the mean of decibels is not the decibels of the mean


def test_psnr_of_equal_pictures_is_infinite_and_of_opposite_ones_zero():
    x = pictures(1, 3, 8, 8)
    assert psnr(x, x).item() == math.inf
    assert psnr(torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)).item() == 0


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_dtype_and_layout_do_not_matter(metric):
    x, y = pictures(2, 3, 16, 16, dtype=torch.float32), pictures(2, 3, 16, 16, dtype=torch.float32)
    expected = metric(x.double(), y.double())
    assert expected.dtype == torch.float64 and expected.dim() == 0
    assert torch.equal(metric(x, y), expected)
    last = metric(x.to(memory_format=torch.channels_last), y[:, :, ::1])
    assert abs(last - expected) < 1e-12
    half = metric(x.bfloat16(), y.bfloat16())
    assert torch.equal(half, metric(x.bfloat16().double(), y.bfloat16().double()))
    assert not metric(x.requires_grad_(), y).requires_grad


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_wrong_shapes_are_named(metric):
    x = torch.zeros(1, 3, 16, 16)
    for other in (x[0], x[:, :1], x[:0], x[..., :15]):
        with pytest.raises(ValueError, match=metric.__name__ + r": x and y must be \[N, C, H, W\]"):
            metric(x, other)
    with pytest.raises(ValueError, match="one shape with N > 0"):
        metric(x[:0], x[:0])
    with pytest.raises(
        ValueError, match=r"ssim: H and W must be at least 11, got \(1, 3, 10, 16\)"
    ):
        ssim(x[:, :, :10], x[:, :, :10])
