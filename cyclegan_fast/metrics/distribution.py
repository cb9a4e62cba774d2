# SPDX-License-Identifier: MIT
"""Patch sliced-Wasserstein distance: how near one set of pictures is to another, without pairs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cyclegan_fast import draws

__all__ = ["patch_swd"]


@torch.no_grad()
def patch_swd(
    x: Tensor,
    y: Tensor,
    *,
    patch: int = 7,
    patches: int = 8192,
    projections: int = 256,
    seed: int = 0,
) -> Tensor:
    """Sliced 1-Wasserstein distance between the small patches of two sets of pictures.

        swd = mean over directions d and ranks i of |sort(d . P_x)_i - sort(d . P_y)_i|

    P_x, P_y are patches drawn with replacement, d unit vectors in patch space, both by counted
    draws of the seed: the same pictures give the same number everywhere. Both sets are sampled at
    the same relative places, so a set has distance 0 to itself. It needs no network weights and no
    pairs; it sees colours and textures up to the patch's size, and nothing larger.

    Args:
        x: [N, C, H, W], any floating dtype and layout, values in [-1, 1].
        y: [M, C, H', W'].
        patch: side of the patches.
        patches: number drawn from each set.
        projections: number of directions.
        seed: seed of patches and directions, in [0, 2**64).

    Returns:
        0-d float64, in units of the pictures' values; two disjoint sets of one kind are not at 0
        but at a floor that depends on their sizes.

    Raises:
        ValueError: wrong rank, an empty set, different channels, or a patch that does not fit.

    Gradients: none. Reference: the 7 x 7 patches of Karras et al., "Progressive growing of GANs",
    ICLR 2018, section 5, at full resolution and without its per-channel normalisation, so that
    differences in colour count; Rabin et al., "Wasserstein barycenter and its application to
    texture mixing", SSVM 2011, for the sliced distance.
    """
    for name, z in (("x", x), ("y", y)):
        if z.dim() != 4 or z.numel() == 0:
            raise ValueError(
                f"patch_swd: {name} must be [N, C, H, W] with N > 0, got {tuple(z.shape)}"
            )
        if min(z.shape[2:]) < patch:
            raise ValueError(
                f"patch_swd: patch must be at most {min(z.shape[2:])} for {name} of "
                f"{tuple(z.shape)}, got {patch}"
            )
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"patch_swd: x and y must have the same channels, got {x.shape[1]} and {y.shape[1]}"
        )
    for name, value in (("patch", patch), ("patches", patches), ("projections", projections)):
        if value < 1:
            raise ValueError(f"patch_swd: {name} must be 1 or more, got {value}")
    directions = _directions(projections, x.shape[1] * patch * patch, seed).to(x.device)
    # Shadows lie along the last axis: sorting the other one takes twice as long.
    shadows = [directions.T @ _sample(z, patch, patches, seed).T.to(x.device) for z in (x, y)]
    ranked = [shadow.sort(dim=1).values for shadow in shadows]
    return (ranked[0] - ranked[1]).abs().mean()


def _directions(count: int, size: int, seed: int) -> Tensor:
    """Unit vectors, float64 [size, count]: normal numbers by Box and Muller, then scaled."""
    u, v = draws.uniforms(seed, "patch_swd/directions", 0, 2 * size * count).reshape(2, size, count)
    normal = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * math.pi * v)
    return torch.from_numpy(normal / np.sqrt(np.square(normal).sum(axis=0)))


def _sample(x: Tensor, side: int, count: int, seed: int) -> Tensor:
    """Patches, float64 [count, C * side * side]."""
    n, c, h, w = x.shape
    u = draws.uniforms(seed, "patch_swd/patches", 0, 3 * count).reshape(3, count)
    picture, top, left = (
        torch.from_numpy((part * high).astype(np.int64)).to(x.device)
        for part, high in zip(u, (n, h - side + 1, w - side + 1), strict=True)
    )
    along = torch.arange(side, device=x.device)
    rows, columns = top[:, None, None] + along[:, None], left[:, None, None] + along
    patches = x.permute(0, 2, 3, 1)[picture[:, None, None], rows, columns]
    return patches.reshape(count, side * side * c).double()
