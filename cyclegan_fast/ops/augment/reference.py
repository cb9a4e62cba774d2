# SPDX-License-Identifier: MIT
"""The specification of augment, in plain PyTorch operations."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.ops.augment.packed import TAP_BITS, PackedPictures


def augment_reference(
    pictures: PackedPictures,
    picks: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Filter rows, then columns; see :func:`cyclegan_fast.ops.augment` for the arguments."""
    height, width = size
    number, top, left, mirrored = picks.unbind(1)
    entry = pictures.table[number.clamp(0, len(pictures) - 1)]
    first, h, w, scaled_h, scaled_w, rows, columns = entry.unbind(1)
    top = torch.minimum(top, scaled_h - height).clamp(min=0)
    left = torch.minimum(left, scaled_w - width).clamp(min=0)
    column = torch.arange(width, device=picks.device)
    column = torch.where((mirrored != 0)[:, None], width - 1 - column, column)
    down = _Taps(pictures, rows, top[:, None] + torch.arange(height, device=picks.device), h)
    across = _Taps(pictures, columns, left[:, None] + column, w)
    channel = torch.arange(pictures.channels, device=picks.device)
    level = _half(picks)
    for t in range(pictures.most_taps[0]):
        row, row_weight = down.tap(t)  # [N, height]
        line = _half(picks)
        for k in range(pictures.most_taps[1]):
            col, weight = across.tap(k)  # [N, width]
            pixel = row[:, :, None] * w[:, None, None] + col[:, None, :]
            at = (first[:, None, None] + pixel * pictures.channels)[..., None] + channel
            line = line + weight[:, None, :, None] * pictures.levels[at]
        level = level + row_weight[:, :, None, None] * _clip(line)
    values = (_clip(level).float() / 255 - 0.5) / 0.5
    return values.permute(0, 3, 1, 2).to(dtype).contiguous(memory_format=memory_format)


class _Taps:
    """The taps of scaled rows (or columns) of the batch's pictures, whose axes have `length`."""

    def __init__(self, pictures: PackedPictures, begin: Tensor, place: Tensor, length: Tensor):
        self._taps = pictures.taps
        self._count = self._taps[begin][:, None].long()
        self._at = begin[:, None] + 1 + place * (self._count + 1)
        self._last = length[:, None] - 1

    def tap(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the pixel that tap k reads, and its weight; zero where there is none."""
        pixel = torch.minimum(self._taps[self._at].long() + k, self._last)
        weight = self._taps[self._at + 1 + torch.clamp(self._count - 1, max=k)].long()
        return pixel, torch.where(k < self._count, weight, 0)


def _half(like: Tensor) -> Tensor:
    return torch.full((), 1 << (TAP_BITS - 1), dtype=torch.int64, device=like.device)


def _clip(total: Tensor) -> Tensor:
    return (total >> TAP_BITS).clamp(0, 255)
