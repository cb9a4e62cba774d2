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

    Attributes:
        lost: whether the file was shorter than that: somebody cut or removed it.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            found = os.fstat(handle).st_size
            self.lost = size > found
            os.ftruncate(handle, min(size, found))
        finally:
            os.close(handle)
        self._pending: list[str] = [] if min(size, found) else [HEADER]

    def write(self, stats: StepStats) -> None:
        """Append a line.

        Raises:
            OSError: as the disk says; nothing is lost.
        """
        counts = [str(count) for count in (stats.step, stats.epoch, stats.images)]
        numbers = [stats.lr, *(stats.losses[name] for name in LOSS_NAMES)]
        # Nine digits tell every float32 from its neighbours.
        self._pending.append(",".join(counts + [f"{number:.9g}" for number in numbers]))
        self._flush(durably=False)

    def sync(self) -> int:
        """Flush to the disk and return the size, for a save.

        Raises:
            OSError: as the disk says.
        """
        return self._flush(durably=True)

    def _flush(self, durably: bool) -> int:
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            before = os.fstat(handle).st_size
            rest = "".join(line + "\n" for line in self._pending).encode()
            try:
                while rest:
                    rest = rest[os.write(handle, rest) :]
            except OSError:
                os.ftruncate(handle, before)  # no half line
                raise
            self._pending = []
            if durably:
                os.fsync(handle)
            return os.fstat(handle).st_size
        finally:
            os.close(handle)
