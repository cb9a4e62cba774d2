# SPDX-License-Identifier: MIT
"""What a translation is measured against: leaving the picture as it is, and matching colours."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cyclegan_fast.metrics.distribution import patch_swd
from cyclegan_fast.metrics.fidelity import psnr, ssim

__all__ = ["colour_match", "compare"]


@torch.no_grad()
def colour_match(
    x: Tensor,
    source: Tensor,
    target: Tensor,
    method: Literal["mean_std", "covariance"] = "mean_std",
) -> Tensor:
    """Recolours pictures so that their domain's colour statistics become the other domain's.

        mean_std:    y = (x - mean_s) / std_s * std_t + mean_t, per channel
        covariance:  y = A (x - mean_s) + mean_t, the linear map of least effort that turns the
                     colours' covariance S into T: A = S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2

    It is the best that can be done without looking at the picture's content, near enough, and so
    the number that a translation must beat.

    Args:
        x: [N, C, H, W], values in [-1, 1], pictures of the source domain.
        source: [M, C, H', W'], the pictures whose statistics x is taken to have.
        target: [K, C, H'', W''], the pictures whose statistics it gets.
        method: one of the two.

    Returns:
        [N, C, H, W] in x's dtype, clamped to [-1, 1].

    Raises:
        ValueError: unknown method, wrong rank, an empty set or different channels.

    Gradients: none. References: Reinhard et al., "Color transfer between images", 2001 (here in
    RGB); Pitie and Kokaram, "The linear Monge-Kantorovitch colour mapping", 2007.
    """
    for name, z in (("x", x), ("source", source), ("target", target)):
        if z.dim() != 4 or (z.numel() == 0 and name != "x") or z.shape[1] != x.shape[1]:
            raise ValueError(
                f"colour_match: {name} must be [N, {x.shape[1]}, H, W], got {tuple(z.shape)}"
            )
    (mean_s, cov_s), (mean_t, cov_t) = _statistics(source), _statistics(target)
    if method == "mean_std":
        # A channel without any spread has nothing to be scaled; it only gets the new mean.
        ratio = (cov_t.diagonal() / cov_s.diagonal().clamp_min(_TINY)).sqrt()
        matrix = torch.diag(torch.where(cov_s.diagonal() > _TINY, ratio, 0.0))
    elif method == "covariance":
        root, inverse = _root(cov_s), _root(cov_s, inverse=True)
        matrix = inverse @ _root(root @ cov_t @ root) @ inverse
    else:
        raise ValueError(f'colour_match: method must be "mean_std" or "covariance", got {method!r}')
    colours = x.double().movedim(1, -1) - mean_s
    matched = (colours @ matrix.T + mean_t).movedim(-1, 1)
    return matched.clamp(-1, 1).to(x.dtype).contiguous()


def compare(
    translated: Tensor, inputs: Tensor, source: Tensor, target: Tensor, truth: Tensor | None = None
) -> dict[str, dict[str, float]]:
    """Scores a translation beside its baselines.

    Args:
        translated: [N, C, H, W] in [-1, 1], the translation of inputs.
        inputs: [N, C, H, W], test pictures of the source domain.
        source: [M, C, H, W], training pictures of the source domain, for the colours.
        target: [K, C, H, W], pictures of the target domain, for the colours and the distance.
        truth: [N, C, H, W], the true translations, where they are known.

    Returns:
        Row -> metric -> value. Rows: "input as is", "colour match", "translated" and, with truth,
        "floor" (the truth itself). Metrics: "patch_swd" to target and, with truth, "psnr", "ssim".
    """
    rows = {
        "input as is": inputs,
        "colour match": colour_match(inputs, source, target),
        "translated": translated,
    }
    if truth is not None:
        rows["floor"] = truth
    table = {row: {"patch_swd": float(patch_swd(z, target))} for row, z in rows.items()}
    for row, z in rows.items():
        if truth is not None and row != "floor":
            table[row] |= {"psnr": float(psnr(z, truth)), "ssim": float(ssim(z, truth))}
    return table


_TINY = 1e-12  # variance of a channel that is the same everywhere, rounding included


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [C] and covariance [C, C] of all pixels, float64."""
    colours = x.double().movedim(1, -1).reshape(-1, x.shape[1])
    mean = colours.mean(dim=0)
    centred = colours - mean
    return mean, centred.T @ centred / len(colours)


def _root(matrix: Tensor, inverse: bool = False) -> Tensor:
    """Square root, or its pseudo-inverse, of a symmetric positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(0).sqrt()
    if inverse:
        values = torch.where(values > _TINY**0.5, 1 / values, 0.0)
    return vectors @ torch.diag(values) @ vectors.T
