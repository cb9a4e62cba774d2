# SPDX-License-Identifier: MIT
"""A joined batch dealt out to the ranks of a run: rank r of W takes the r-th slice of it.

W ranks with batches of B so see, step by step, what one process with batches of W B sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rows(total: int, rank: int, count: int) -> tuple[range, int]:
    """Return which pictures of a joined batch a rank takes, and how many of them count.

    A batch with fewer pictures than ranks, the last one of an epoch, leaves nothing to some. They
    take one picture all the same, since every rank must take part in every step; it counts 0.

    Args:
        total: pictures of the joined batch, at least 1.
        rank: in [0, count).
        count: ranks.
    """
    begin, end = total * rank // count, total * (rank + 1) // count
    return range(begin, max(end, begin + 1)), end - begin


class Part:
    """One rank's part of data that cannot make parts itself: whole batches, of which it keeps some.

    Args:
        data: its `steps_per_epoch` and `batch` are used.
        rank: in [0, count).
        count: ranks.
    """

    def __init__(self, data: Any, rank: int, count: int) -> None:
        self._data, self._rank, self._count = data, rank, count

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of joined batches in an epoch."""
        return self._data.steps_per_epoch(batch_size * self._count)

    def batch(self, step: int, batch_size: int) -> Mapping[str, Any]:
        """Return this rank's part of a step's joined batch, with the entry "joined" of `Batch`."""
        whole = self._data.batch(step, batch_size * self._count)
        total = len(whole["A"])
        taken, counted = rows(total, self._rank, self._count)
        cut = {name: part[taken.start : taken.stop] for name, part in whole.items()}
        return {**cut, "joined": (counted, total)}


def part_of(data: Any, rank: int, count: int) -> Any:
    """Return a rank's part of data, which reads no pictures but its own where data can do so."""
    if hasattr(data, "part"):
        return data.part(rank, count)
    return Part(data, rank, count)
