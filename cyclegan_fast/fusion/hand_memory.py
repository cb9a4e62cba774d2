# SPDX-License-Identifier: MIT
"""Memory in which the runs of a step lie side by side, and how they are read as one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from cyclegan_fast.fusion.alike import Row


class Memory:
    """Tensors for all pictures of a step, by a key, of which each run takes its own part.

    Those of layers that are alike lie behind each other.

    Args:
        images: pictures of the step.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._whole: dict[Hashable, Tensor] = {}
        self._taken: dict[Hashable, int] = {}

    def take(
        self,
        key: Hashable,
        row: Row,
        first: int,
        n: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """Return [n, *shape] for pictures `first` to `first + n` of the step, of one layer.

        It lies beside what other runs take where shape, dtype and layout are the same.
        """
        images = self._images * row.rows
        size = (images, *shape)
        whole = self._whole.get(key)
        if whole is None:
            whole = torch.empty(size, dtype=dtype, device=device, memory_format=layout)
            self._whole[key] = whole
        same = whole.shape == size and whole.dtype == dtype
        if not (same and whole.is_contiguous(memory_format=layout)):
            # It will not be taken whole: its parts alone keep it.
            self._whole.pop(key), self._taken.pop(key, None)
            return torch.empty((n, *shape), dtype=dtype, device=device, memory_format=layout)
        self._taken[key] = self._taken.get(key, 0) + n
        if self._taken[key] == images:  # the parts alone keep it from now on
            del self._whole[key], self._taken[key]
        first += row.row * self._images
        return whole[first : first + n]


def beside(parts: Sequence[Tensor]) -> Tensor | None:
    """Return the parts as one tensor along the first dimension, if they lie so in memory."""
    first = parts[0]
    if len(parts) == 1:
        return first
    step = first.stride(0)
    end = first.storage_offset()
    for part in parts:
        follows = (
            part.untyped_storage()._cdata == first.untyped_storage()._cdata
            and part.stride() == first.stride()
            and part.storage_offset() == end
        )
        if not follows:
            return None
        end += len(part) * step
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def whole(parts: Sequence[Tensor]) -> Tensor:
    """Return the parts as one tensor along the first dimension; a view where they lie so."""
    found = beside(parts)
    return torch.cat(list(parts)) if found is None else found
