# SPDX-License-Identifier: MIT
"""What the Triton kernel of adam looks its tensors up in: addresses and blocks, on the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 1024  # elements of a program: eight of a thread's, two vectors of four


class Table(NamedTuple):
    """One launch's lookups."""

    # int64 [tensors, 7]: the addresses of param, grad, exp_avg, exp_avg_sq, half (0: none) and
    # step, and the number of elements.
    rows: Tensor
    programs: Tensor  # int64 [programs, 2]: the number of its tensor and its first element there
    aligned: bool  # every address is a multiple of 16 bytes


class Tables:
    """The tables of an optimiser, kept from step to step.

    Gradients come to lie in new places, so rows are written again whenever an address changed. In a
    captured CUDA graph addresses stay, but nothing may be copied from the host while it is
    captured: that table is written by `finish_capture`, before the first replay.
    """

    def __init__(self) -> None:
        self._programs: dict[tuple[int, ...], Tensor] = {}  # by the sizes of the tensors
        self._eager: tuple[list[list[int]], Table] | None = None
        self._captured: list[Table] = []  # which graphs read as long as they live
        self._unwritten: list[tuple[Tensor, list[list[int]]]] = []

    def find(self, groups: tuple[list[Tensor], ...], halves: list[Tensor | None]) -> Table:
        """Return the table for params, grads, exp_avgs, exp_avg_sqs and steps, and their halves."""
        params = groups[0]
        device = params[0].device
        columns = [[t.data_ptr() for t in group] for group in groups]
        columns.insert(4, [0 if half is None else half.data_ptr() for half in halves])
        sizes = [t.numel() for t in params]
        rows = [list(row) for row in zip(*columns, sizes, strict=True)]
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        if not capturing and self._eager is not None and self._eager[0] == rows:
            return self._eager[1]
        programs = self._programs.get(tuple(sizes))
        if programs is None:
            blocks = [[t, first] for t, size in enumerate(sizes) for first in range(0, size, BLOCK)]
            programs = self._on_device(blocks, 2, device, capturing)
            self._programs[tuple(sizes)] = programs
        # A step is a scalar, and read as one.
        aligned = all(address % 16 == 0 for column in columns[:5] for address in column)
        table = Table(self._on_device(rows, 7, device, capturing), programs, aligned)
        if capturing:
            self._captured.append(table)
        else:
            self._eager = rows, table
        return table

    def _on_device(
        self, values: list[list[int]], width: int, device: torch.device, capturing: bool
    ) -> Tensor:
        if capturing:
            memory = torch.empty((len(values), width), dtype=torch.int64, device=device)
            self._unwritten.append((memory, values))
            return memory
        # Pinned: from pageable memory the host would wait for the device, every plain step.
        host = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
        return host.view(-1, width).to(device, non_blocking=True)

    def finish_capture(self) -> None:
        """Write what could not be written while a graph was captured."""
        for memory, values in self._unwritten:
            memory.copy_(torch.tensor(values, dtype=torch.int64).view(memory.shape))
        self._unwritten.clear()
