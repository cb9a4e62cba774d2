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
    captured: that table is written by `finish_capture`, before the first replay. Its memory is set
    aside by a step before: what is allocated while a graph is captured may lie where the graph
    itself keeps something else earlier in each replay.
    """

    def __init__(self) -> None:
        self._programs: dict[tuple[int, ...], Tensor] = {}  # by the sizes of the tensors
        self._eager: tuple[list[list[int]], Table] | None = None
        self._set_aside: dict[tuple[int, ...], Tensor] = {}  # rows of the next graph, by the sizes
        self._captured: list[Table] = []  # which graphs read as long as they live
        self._unwritten: list[tuple[Tensor, list[list[int]]]] = []

    def find(self, groups: tuple[list[Tensor], ...], halves: list[Tensor | None]) -> Table:
        """Return the table for params, grads, exp_avgs, exp_avg_sqs and steps, and their halves.

        Raises:
            RuntimeError: a graph is being captured, and no step was made before it, or
                finish_capture was not called after the last one.
        """
        params = groups[0]
        device = params[0].device
        columns = [[t.data_ptr() for t in group] for group in groups]
        columns.insert(4, [0 if half is None else half.data_ptr() for half in halves])
        sizes = [t.numel() for t in params]
        rows = [list(row) for row in zip(*columns, sizes, strict=True)]
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        if not capturing and self._eager is not None and self._eager[0] == rows:
            return self._eager[1]
        # A step is a scalar, and read as one.
        aligned = all(address % 16 == 0 for column in columns[:5] for address in column)
        key = tuple(sizes)
        if capturing:
            table = Table(self._take(key, rows), self._programs[key], aligned)
            self._captured.append(table)
            return table
        if key not in self._programs:
            blocks = [[t, first] for t, size in enumerate(sizes) for first in range(0, size, BLOCK)]
            self._programs[key] = _on_device(blocks, 2, device)
        table = Table(_on_device(rows, 7, device), self._programs[key], aligned)
        if device.type == "cuda" and key not in self._set_aside:
            self._set_aside[key] = torch.empty_like(table.rows)
        self._eager = rows, table
        return table

    def _take(self, key: tuple[int, ...], rows: list[list[int]]) -> Tensor:
        memory = self._set_aside.pop(key, None)
        if memory is None:
            raise RuntimeError(
                "adam: no memory is set aside for the table of a CUDA graph: make a step outside "
                "of the graph first, and call finish_capture() after each capture"
            )
        self._unwritten.append((memory, rows))
        return memory

    def finish_capture(self) -> None:
        """Write what could not be written while a graph was captured."""
        for memory, rows in self._unwritten:
            memory.copy_(torch.tensor(rows, dtype=torch.int64))
            self._set_aside[tuple(row[-1] for row in rows)] = torch.empty_like(memory)
        self._unwritten.clear()

    def forget_capture(self) -> None:
        """Be as before a capture that failed: no graph reads its tables."""
        for memory, rows in self._unwritten:
            self._captured = [table for table in self._captured if table.rows is not memory]
            self._set_aside[tuple(row[-1] for row in rows)] = memory
        self._unwritten.clear()


def _on_device(values: list[list[int]], width: int, device: torch.device) -> Tensor:
    # Pinned: from pageable memory the host would wait for the device, every plain step.
    host = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return host.view(-1, width).to(device, non_blocking=True)
