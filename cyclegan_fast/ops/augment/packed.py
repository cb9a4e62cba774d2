# SPDX-License-Identifier: MIT
"""Pictures side by side in memory, and what Pillow's bicubic filter weighs in each of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Pillow's fixed point: 32 bits less 8 of a level and 2 of the sum.
TAP_BITS = 22
_SUPPORT = 2.0  # of the bicubic filter, in pixels of the larger picture
_A = -0.5


@dataclass(frozen=True, eq=False)
class PackedPictures:
    """8-bit pictures of any sizes on one device, each with the size it is to be scaled to.

    Args:
        levels: uint8 [bytes], pictures [H, W, C] one after the other.
        table: int64 [P, 7]: first byte, height, width, scaled height, scaled width, where in taps
            those of the rows and of the columns begin.
        taps: int32: for an axis the number K of weights, then for each scaled row or column the
            first one that it reads and K weights in units of 2**-22.
        channels: C.
        least: smallest scaled height and width among the pictures: no crop may be larger.
        most_taps: largest K of rows and of columns.

    Make one with `pack`: nothing is checked here, and kernels read where the table says.
    """

    levels: Tensor
    table: Tensor
    taps: Tensor
    channels: int
    least: tuple[int, int]
    most_taps: tuple[int, int]

    @classmethod
    def pack(
        cls, pictures: Sequence[np.ndarray], scaled: Sequence[tuple[int, int]]
    ) -> PackedPictures:
        """Copy pictures into one tensor on the CPU.

        Args:
            pictures: P arrays uint8 [H, W, C] of one C; at least one.
            scaled: (height, width) that each is to be scaled to.

        Raises:
            ValueError: no picture, an empty one, channels that differ, or lengths that do.
            TypeError: a picture that is not uint8.
        """
        if not len(pictures) or len(pictures) != len(scaled):
            raise ValueError(
                "augment: pictures must be one or more, each with a size to be scaled to, got "
                f"{len(pictures)} and {len(scaled)} sizes"
            )
        axes, table, first = _Axes(), [], 0
        for picture, (height, width) in zip(pictures, scaled, strict=True):
            _check(picture, pictures[0], height, width)
            h, w, _ = picture.shape
            taps = axes.place(0, h, height), axes.place(1, w, width)
            table.append([first, h, w, height, width, *taps])
            first += picture.size
        return cls(
            levels=torch.from_numpy(np.concatenate([p.reshape(-1) for p in pictures])),
            table=torch.tensor(table),
            taps=torch.from_numpy(np.concatenate(axes.parts)),
            channels=pictures[0].shape[2],
            least=(min(h for h, _ in scaled), min(w for _, w in scaled)),
            most_taps=(axes.most[0], axes.most[1]),
        )

    def to(self, device: torch.device | str) -> PackedPictures:
        """Return the same pictures on a device."""
        levels, table, taps = (t.to(device) for t in (self.levels, self.table, self.taps))
        return dataclasses.replace(self, levels=levels, table=table, taps=taps)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def nbytes(self) -> int:
        """Memory that all of it takes."""
        return sum(t.nbytes for t in (self.levels, self.table, self.taps))


class _Axes:
    """Taps of every pair (size, scaled size) that occurs, each once."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.most = [1, 1]  # weights of rows, of columns
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        self._length = 0

    def place(self, axis: int, size: int, scaled: int) -> int:
        """Return where the taps of an axis, 0 for rows and 1 for columns, begin."""
        if (size, scaled) not in self._places:
            taps = bicubic_taps(size, scaled)
            count = taps.shape[1] - 1
            self.parts += [np.array([count], dtype=np.int32), taps.reshape(-1)]
            self._places[size, scaled] = self._length, count
            self._length += 1 + taps.size
        begin, count = self._places[size, scaled]
        self.most[axis] = max(self.most[axis], count)
        return begin


def bicubic_taps(size: int, scaled: int) -> np.ndarray:
    """Return what Pillow weighs along one axis, to the bit.

        scale = size / scaled, widened to 1 at least; support = 2 scale
        center = (i + 1/2) size / scaled
        w[k] = cubic((first + k - center + 1/2) / scale), normalised, rounded to 2**-22

    Args:
        size: pixels of the picture along the axis, at least 1.
        scaled: pixels after scaling, at least 1.

    Returns:
        int32 [scaled, 1 + K]: first pixel, and K weights; those beyond the last pixel are zero.

    Source: Pillow, src/libImaging/Resample.c; Keys 1981, IEEE TASSP 29(6), with a = -1/2.
    """
    if size == scaled:
        whole = np.full((size, 1), 1 << TAP_BITS, dtype=np.int32)
        return np.hstack([np.arange(size, dtype=np.int32)[:, None], whole])
    # In Pillow's order of operations throughout: its weights are doubles until the last line.
    step = size / scaled
    scale = max(step, 1.0)
    support = _SUPPORT * scale
    count = math.ceil(support) * 2 + 1
    center = (np.arange(scaled) + 0.5) * step
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), size)
    weights = np.zeros((scaled, count))
    total = np.zeros(scaled)
    inverse = 1.0 / scale
    for k in range(count):
        there = first + k < last
        weights[:, k] = np.where(there, _cubic((k + first - center + 0.5) * inverse), 0.0)
        total += weights[:, k]
    weights = weights / np.where(total != 0, total, 1.0)[:, None]
    fixed = np.trunc(weights * (1 << TAP_BITS) + np.where(weights < 0, -0.5, 0.5))
    return np.hstack([first[:, None], fixed.astype(np.int64)]).astype(np.int32)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _check(picture: np.ndarray, first: np.ndarray, height: int, width: int) -> None:
    if picture.dtype != np.uint8:
        raise TypeError(f"augment: pictures must be uint8, got {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] != first.shape[-1] or not picture.size:
        raise ValueError(
            f"augment: pictures must be [H, W, C] with C = {first.shape[-1]} and not empty, "
            f"got {picture.shape}"
        )
    if height < 1 or width < 1:
        raise ValueError(f"augment: scaled must be 1 x 1 or more, got {height} x {width}")
