# SPDX-License-Identifier: MIT
"""Memory in which the runs of a step lie side by side, and how they are read as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class Memory:
    """Tensors for all pictures of a step, by a key, of which each run takes its own part.

    Args:
        images: pictures of the step.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._whole: dict[int, Tensor] = {}
        self._taken: dict[int, int] = {}

    def take(
        self,
        key: int,
        first: int,
        n: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        layout: torch.memory_format,
    ) -> Tensor:
        """Return [n, *shape] for pictures `first` to `first + n` of the step.

        It lies beside what other runs take where shape, dtype and layout are the same.
        """
        size = (self._images, *shape)
        whole = self._whole.get(key)
        if whole is None:
            whole = torch.empty(size, dtype=dtype, device=device, memory_format=layout)
            self._whole[key] = whole
        same = whole.shape == size and whole.dtype == dtype
        if not (same and whole.is_contiguous(memory_format=layout)):
            return torch.empty((n, *shape), dtype=dtype, device=device, memory_format=layout)
        self._taken[key] = self._taken.get(key, 0) + n
        if self._taken[key] == self._images:  # the parts alone keep it from now on
            del self._whole[key], self._taken[key]
        return whole[first : first + n]


def joined(
    xs: Sequence[Tensor], ys: Sequence[Tensor | None], gradients: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Yield triples of the runs' tensors, those of one size as one.

    Args:
        xs: [N, C, H, W] of each run.
        ys: likewise, or None in all.
        gradients: likewise.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(xs):
        groups.setdefault(tuple(x.shape[1:]), []).append(i)
    for group in groups.values():
        of_group = [ys[i] for i in group]
        known = [y for y in of_group if y is not None]
        yield (
            whole([xs[i] for i in group]),
            whole(known) if known else None,
            whole([gradients[i] for i in group]),
        )


def whole(parts: Sequence[Tensor]) -> Tensor:
    """Return the parts as one tensor along the first dimension; a view where they lie so."""
    first = parts[0]
    if len(parts) == 1:
        return first
    step = first.stride(0)
    end = first.storage_offset()
    for part in parts:
        beside = (
            part.untyped_storage()._cdata == first.untyped_storage()._cdata
            and part.stride() == first.stride()
            and part.storage_offset() == end
        )
        if not beside:
            return torch.cat(list(parts))
        end += len(part) * step
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())
