# SPDX-License-Identifier: MIT
"""Batches made on the device, of 8-bit pictures that all lie there: no loader, no copy per step."""

from __future__ import annotations

import torch

from cyclegan_fast.data.unpaired import Batch, UnpairedDataset
from cyclegan_fast.errors import size_text
from cyclegan_fast.ops import PackedPictures, augment

__all__ = ["ResidentPictures"]

# Of the memory that is free before the first step; activations come after. 0.5 GB, which is what
# horse2zebra takes, are there on a GPU of 4 GB.
_SHARE = 0.25


class ResidentPictures:
    """The batches of an UnpairedDataset, to the bit, without its files.

    Args:
        data: the pictures and the draws.
        packed: of `data.pack()`, on the device.
        dtype: of the batches.
        memory_format: of the batches.
    """

    def __init__(
        self,
        data: UnpairedDataset,
        packed: dict[str, PackedPictures],
        dtype: torch.dtype,
        memory_format: torch.memory_format,
    ) -> None:
        self._data = data
        self._packed = packed
        self._sizes = {side: pictures.table[:, 3:5].tolist() for side, pictures in packed.items()}
        self._dtype = dtype
        self._memory_format = memory_format

    @classmethod
    def of(
        cls,
        data: object,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
    ) -> ResidentPictures | str:
        """Put all pictures on a device, or say why they stay where they are."""
        if not isinstance(data, UnpairedDataset):
            return "they come from the caller"
        if not data.preprocess.crops:
            return "they keep their sizes, and batches are made of one"
        packed = data.pack()
        if packed is None:
            return "they do not fit into the memory for decoded pictures"
        size = sum(pictures.nbytes for pictures in packed.values())
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
            if size > _SHARE * free:
                return (
                    f"{size_text(size)} are over a quarter of the {size_text(free)} free on "
                    f"{device}"
                )
        on_device = {side: pictures.to(device) for side, pictures in packed.items()}
        return cls(data, on_device, dtype, memory_format)

    def __str__(self) -> str:
        device = self._packed["A"].levels.device
        return f"all on {device}, {size_text(self.nbytes)}, scaled and cropped there"

    @property
    def nbytes(self) -> int:
        """Memory that the pictures take on the device."""
        return sum(pictures.nbytes for pictures in self._packed.values())

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches in an epoch, the smaller last one included."""
        return self._data.steps_per_epoch(batch_size)

    def files(self, step: int, batch_size: int = 1) -> list[str]:
        """Returns the files that the batch of a step was read from."""
        return self._data.files(step, batch_size)

    def batch(self, step: int, batch_size: int = 1) -> Batch:
        """Returns the batch of a step, on the device; nothing waits for it."""
        crop = self._data.preprocess.crop_size
        cuts = self._data.cuts(step, batch_size)
        picks = [
            [cut.picture, *self._data.preprocess.corner(cut.place, *sizes[cut.picture]), cut.mirror]
            for side, sizes in self._sizes.items()
            for cut in cuts[side]
        ]
        moved = torch.tensor(picks).to(self._packed["A"].table.device, non_blocking=True)
        a, b = (
            augment(self._packed[side], part, (crop, crop), self._dtype, self._memory_format)
            for side, part in zip("AB", moved.chunk(2), strict=True)
        )
        paths = {side: [self._data.path(side, cut.picture) for cut in cuts[side]] for side in "AB"}
        made = Batch(A=a, B=b, A_paths=paths["A"], B_paths=paths["B"])
        return self._data.labelled(made, step, batch_size)
