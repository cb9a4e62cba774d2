# SPDX-License-Identifier: MIT
"""What the Triton kernel of adam looks its tensors up in: addresses and blocks, on the device."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

BLOCK = 1024  # elements of a program: eight of a thread's, two vectors of four


@dataclass
class Table:
    """One launch's lookups, in one stretch of memory: of every tensor, then of every program.

    Attributes:
        memory: int64 [7 tensors + 2 programs]. Of every tensor the addresses of param, grad,
            exp_avg, exp_avg_sq, half (0: none) and step, and the number of elements; of every
            program the number of its tensor and its first element there.
        tensors: how many.
        programs: how many.
        aligned: every address is a multiple of 16 bytes.
    """

    memory: Tensor
    tensors: int
    programs: int
    aligned: bool


@dataclass
class Tables:
    """The tables of an optimiser, kept from step to step.

    Gradients come to lie in new places, so a table is written again whenever an address changed.
    In a captured CUDA graph addresses stay, but nothing may be copied from the host while it is
    captured: that table is written by `finish_capture`, before the first replay.
    """

    _eager: Table | None = None
    _eager_values: list[int] = field(default_factory=list)
    _captured: list[tuple[Table, list[int]]] = field(default_factory=list)
    _unwritten: int = 0

    def find(self, groups: tuple[list[Tensor], ...], halves: list[Tensor | None]) -> Table:
        """Return the table for params, grads, exp_avgs, exp_avg_sqs and steps, and their halves."""
        params = groups[0]
        columns = [[t.data_ptr() for t in group] for group in groups]
        columns.insert(4, [0 if half is None else half.data_ptr() for half in halves])
        sizes = [t.numel() for t in params]
        rows = [value for row in zip(*columns, sizes, strict=True) for value in row]
        programs = [(t, first) for t, size in enumerate(sizes) for first in range(0, size, BLOCK)]
        values = rows + [value for program in programs for value in program]
        # A step is a scalar, and read as one.
        aligned = all(address % 16 == 0 for column in columns[:5] for address in column)
        device = params[0].device
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            memory = torch.empty(len(values), dtype=torch.int64, device=device)
            table = Table(memory, len(sizes), len(programs), aligned)
            self._captured.append((table, values))
            self._unwritten += 1
            return table
        if self._eager is None or values != self._eager_values:
            # Pinned: from pageable memory the host would wait for the device, every plain step.
            host = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
            memory = host.to(device, non_blocking=True)
            self._eager = Table(memory, len(sizes), len(programs), aligned)
            self._eager_values = values
        return self._eager

    def finish_capture(self) -> None:
        """Write what could not be written while a graph was captured."""
        for table, values in self._captured[len(self._captured) - self._unwritten :]:
            table.memory.copy_(torch.tensor(values, dtype=torch.int64))
        self._unwritten = 0
