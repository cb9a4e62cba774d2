# SPDX-License-Identifier: MIT
"""losses.csv: one line per report, the same bytes whether or not the run was interrupted."""

from __future__ import annotations

import os
from pathlib import Path

from cyclegan_fast.training.reporter import StepStats
from cyclegan_fast.training.stats import LOSS_NAMES

FILE_NAME = "losses.csv"
HEADER = ",".join(("step", "epoch", "images", "lr", *LOSS_NAMES))


class MetricsLog:
    """Appends lines; lines the disk refuses are kept and written with the next.

    Args:
        path: the file.
        size: bytes to keep, as `sync` gave at the save the run goes on from; what a killed process
            wrote after that save is cut off. 0 begins anew.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self._file = open(path, "ab")
        self.lost = size > self._file.tell()  # somebody removed or cut the file
        self._size = min(size, self._file.tell())
        self._file.truncate(self._size)
        self._pending: list[str] = [] if self._size else [HEADER]

    def write(self, stats: StepStats) -> None:
        """Append a line.

        Raises:
            OSError: as the disk says; nothing is lost.
        """
        numbers = [stats.lr, *(stats.losses[name] for name in LOSS_NAMES)]
        # Nine digits tell every float32 from its neighbours.
        fields = [str(stats.step), str(stats.epoch), str(stats.images)]
        self._pending.append(",".join(fields + [f"{number:.9g}" for number in numbers]))
        self._flush()

    def sync(self) -> int:
        """Flush to the disk and return the size, for a save.

        Raises:
            OSError: as the disk says.
        """
        self._flush()
        os.fsync(self._file.fileno())
        return self._size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _flush(self) -> None:
        data = "".join(line + "\n" for line in self._pending).encode()
        handle = self._file.fileno()
        try:
            written = 0
            while written < len(data):
                written += os.write(handle, data[written:])
        except OSError:
            os.ftruncate(handle, self._size)  # no half line
            raise
        self._size += len(data)
        self._pending = []
