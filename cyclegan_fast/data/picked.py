# SPDX-License-Identifier: MIT
"""A batch of pictures that are still to be scaled, cropped and mirrored, on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cyclegan_fast.ops import PackedPictures, augment

__all__ = ["PickedPictures"]


@dataclass(frozen=True, eq=False)
class PickedPictures:
    """Which pictures a batch takes, and how; `make` makes the batch in one launch.

    A training step makes its batch itself, so that a captured one does it by replay.

    Attributes:
        pictures: on the device; `gathered` ones in the host's memory, taps excepted.
        picks: int64 [N, 4], see `augment`; on any device.
        size: height and width of the crop.
        dtype: of the batch.
        memory_format: of the batch.
        most_bytes: what the levels of any batch of N take, where each brings its own; else 0.
    """

    pictures: PackedPictures
    picks: Tensor
    size: tuple[int, int]
    dtype: torch.dtype
    memory_format: torch.memory_format
    most_bytes: int = 0

    @property
    def device(self) -> torch.device:
        """Where the batch is made."""
        return self.pictures.taps.device

    @property
    def shape(self) -> torch.Size:
        """[N, C, H, W] of the batch."""
        return torch.Size((len(self.picks), self.pictures.channels, *self.size))

    def __len__(self) -> int:
        return len(self.picks)

    def make(self) -> Tensor:
        """Return the batch, [N, C, H, W] in [-1, 1]."""
        here = self._on_device()
        return augment(here.pictures, here.picks, self.size, self.dtype, self.memory_format)

    def to(
        self,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
        non_blocking: bool = False,
    ) -> Tensor:
        """Return the batch as `Tensor.to` would."""
        return self.make().to(
            device=device, dtype=dtype, memory_format=memory_format, non_blocking=non_blocking
        )

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for batches that `copy_` takes from each other: of the same pictures, as many."""
        return self.shape, id(self.pictures.taps), self.most_bytes

    def static(self) -> PickedPictures:
        """Return a batch on the device whose memory stays, for other batches to be copied into."""
        made = self._placed(
            torch.empty(self.most_bytes, dtype=torch.uint8, device=self.device),
            torch.empty_like(self.pictures.table, device=self.device),
            torch.empty_like(self.picks, device=self.device),
        )
        made.copy_(self)
        return made

    def copy_(self, other: PickedPictures, non_blocking: bool = True) -> None:
        """Take over a batch of the same kind."""
        self.picks.copy_(other.picks, non_blocking=non_blocking)
        if self.most_bytes:
            mine, given = self.pictures, other.pictures
            used = mine.levels[: len(given.levels)]
            used.copy_(given.levels, non_blocking=non_blocking)
            mine.table.copy_(given.table, non_blocking=non_blocking)

    def _on_device(self) -> PickedPictures:
        given = self.pictures.levels, self.pictures.table, self.picks
        return self._placed(*(x.to(self.device, non_blocking=True) for x in given))

    def _placed(self, levels: Tensor, table: Tensor, picks: Tensor) -> PickedPictures:
        """Return the same with what changes from batch to batch in other memory."""
        pictures = self.pictures
        if self.most_bytes:
            pictures = dataclasses.replace(pictures, levels=levels, table=table)
        return dataclasses.replace(self, pictures=pictures, picks=picks)


def gathered(
    pictures: PackedPictures, picks: Sequence[Sequence[int]]
) -> tuple[PackedPictures, list[list[int]]]:
    """Copy the chosen ones of pictures in the host's memory, ready to be brought to a device.

    Args:
        pictures: levels and table on the CPU; taps where the batch is made.
        picks: N x 4, see `augment`.

    Returns:
        The N pictures, and the picks among them.
    """
    pinned = pictures.taps.is_cuda
    rows = pictures.table[[pick[0] for pick in picks]]
    counts = (rows[:, 1] * rows[:, 2] * pictures.channels).tolist()
    levels = torch.empty(sum(counts), dtype=torch.uint8, pin_memory=pinned)
    firsts = rows[:, 0].tolist()
    for place, first, count in zip(levels.split(counts), firsts, counts, strict=True):
        place.copy_(pictures.levels[first : first + count])
    rows[:, 0] = torch.tensor([0, *counts[:-1]]).cumsum(0)
    few = dataclasses.replace(pictures, levels=levels, table=rows.pin_memory() if pinned else rows)
    return few, [[i, *pick[1:]] for i, pick in enumerate(picks)]
