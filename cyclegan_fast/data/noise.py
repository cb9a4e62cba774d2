# SPDX-License-Identifier: MIT
"""Value noise from given lattices, in operations of single elements only (see scenes.py)."""

from __future__ import annotations

import numpy as np

__all__ = ["octaves"]


def octaves(lattices: list[np.ndarray], size: int) -> np.ndarray:
    """Joins lattices of halving weight into noise around 0.5, stretched.

    Args:
        lattices: per octave float32 [n, cells + 1, cells + 1], or [n, 1, cells + 1] for a line,
            in [0, 1).
        size: number of pixels along each axis that has cells.

    Returns:
        float32 [n, size, size] or [n, 1, size]; mean 0.5, mostly but not wholly within 0 to 1.
    """
    total = sum(2.0**-octave for octave in range(len(lattices)))
    value: np.ndarray = np.zeros((), dtype=np.float32)
    for octave, lattice in enumerate(lattices):
        if lattice.shape[1] > 1:
            lattice = _joined(lattice.transpose(0, 2, 1), size).transpose(0, 2, 1)
        value = value + _joined(lattice, size) * (2.0**-octave / total)
    return (value - 0.5) * 1.7 + 0.5


def _joined(lattice: np.ndarray, size: int) -> np.ndarray:
    """Interpolates the last axis, cells + 1 values, at size pixel centres."""
    cells = lattice.shape[-1] - 1
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    cell = np.minimum(place.astype(np.int64), cells - 1)
    t = place - cell.astype(np.float32)
    t = t * t * (3 - 2 * t)
    left = lattice[..., cell]
    return left + t * (lattice[..., cell + 1] - left)
