# SPDX-License-Identifier: MIT
"""Batches of 8-bit pictures that lie decoded in one place, scaled and cropped on the device.

On the device itself where all fit: nothing but the draws goes there. Else in the host's memory,
from which the pictures of a batch are gathered in pinned memory and brought over as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from cyclegan_fast.data.picked import PickedPictures, gathered
from cyclegan_fast.data.unpaired import PickedBatch, UnpairedDataset
from cyclegan_fast.errors import size_text
from cyclegan_fast.ops import PackedPictures

__all__ = ["ResidentPictures"]

# Of the memory that is free before the first step; activations come after. 0.5 GB, which is what
# horse2zebra takes, are there on a GPU of 4 GB.
_SHARE = 0.25


class ResidentPictures:
    """The batches of an UnpairedDataset, to the bit, without its files.

    Args:
        data: the pictures and the draws.
        packed: of `data.pack()`, on the device; where they are gathered, their taps alone.
        dtype: of the batches.
        memory_format: of the batches.
        gathers: bring over what each batch takes.

    Attributes:
        gathers: see above.
        nbytes: memory that the pictures take on the device.
    """

    def __init__(
        self,
        data: UnpairedDataset,
        packed: dict[str, PackedPictures],
        dtype: torch.dtype,
        memory_format: torch.memory_format,
        *,
        gathers: bool = False,
    ) -> None:
        self._data = data
        self._packed = packed
        self._sizes = {side: pictures.table[:, 3:5].tolist() for side, pictures in packed.items()}
        self._dtype = dtype
        self._memory_format = memory_format
        self._device = packed["A"].taps.device
        self.gathers = gathers
        held = [p.taps.nbytes if gathers else p.nbytes for p in packed.values()]
        self.nbytes = sum(held)
        self._largest = {
            side: int((pictures.table[:, 1] * pictures.table[:, 2]).max()) * pictures.channels
            for side, pictures in packed.items()
        }

    @classmethod
    def of(
        cls,
        data: object,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
    ) -> ResidentPictures | str:
        """Put all pictures into one place, or say why they are read file by file."""
        if not isinstance(data, UnpairedDataset):
            return "they come from the caller"
        if not data.preprocess.crops:
            return "they keep their sizes, and batches are made of one"
        packed = data.pack()
        if packed is None:
            return "they do not fit into the memory for decoded pictures"
        gathers = not _fits(sum(pictures.nbytes for pictures in packed.values()), device)
        there = {
            side: dataclasses.replace(pictures, taps=pictures.taps.to(device))
            if gathers
            else pictures.to(device)
            for side, pictures in packed.items()
        }
        return cls(data, there, dtype, memory_format, gathers=gathers)

    def __str__(self) -> str:
        size = size_text(sum(pictures.nbytes for pictures in self._packed.values()))
        if self.gathers:
            return (
                f"all in the host's memory, {size}, over a quarter of what is free on "
                f"{self._device}; scaled and cropped there"
            )
        return f"all on {self._device}, {size}, scaled and cropped there"

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches in an epoch, the smaller last one included."""
        return self._data.steps_per_epoch(batch_size)

    def files(self, step: int, batch_size: int = 1) -> list[str]:
        """Returns the files that the batch of a step was read from."""
        return self._data.files(step, batch_size)

    def batch(self, step: int, batch_size: int = 1) -> PickedBatch:
        """Returns what the batch of a step is to be made of; nothing waits for the device."""
        cuts = self._data.cuts(step, batch_size)
        picked = {
            side: self._picked(
                side,
                [
                    [
                        cut.picture,
                        *self._data.preprocess.corner(cut.place, *sizes[cut.picture]),
                        cut.mirror,
                    ]
                    for cut in cuts[side]
                ],
            )
            for side, sizes in self._sizes.items()
        }
        paths = {side: [self._data.path(side, cut.picture) for cut in cuts[side]] for side in "AB"}
        made = PickedBatch(A=picked["A"], B=picked["B"], A_paths=paths["A"], B_paths=paths["B"])
        return self._data.labelled(made, step, batch_size)

    def _picked(self, side: str, picks: Sequence[Sequence[int]]) -> PickedPictures:
        pictures, crop = self._packed[side], self._data.preprocess.crop_size
        if self.gathers:
            pictures, picks = gathered(pictures, picks)
        chosen = torch.tensor(picks, dtype=torch.int64, pin_memory=self._device.type == "cuda")
        return PickedPictures(
            pictures,
            chosen,
            (crop, crop),
            self._dtype,
            self._memory_format,
            most_bytes=len(picks) * self._largest[side] if self.gathers else 0,
        )


def _fits(size: int, device: torch.device) -> bool:
    return device.type != "cuda" or size <= _SHARE * torch.cuda.mem_get_info(device)[0]
