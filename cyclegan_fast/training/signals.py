# SPDX-License-Identifier: MIT
"""Ctrl-C and the signals of schedulers, turned into a request to stop after this step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Kubernetes, docker stop and Slurm send SIGTERM; `sbatch --signal=USR1@60` the last one.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """Raised out of `StopSignals.waiting`, where nothing is lost by leaving at once."""


class StopSignals:
    """Notes the first signal; a second Ctrl-C ends the process at once, as without this.

    Not so under torchrun: there a single Ctrl-C comes twice, from the terminal and from torchrun.

    Handlers are set in the block and put back after it. Outside the main thread, where Python
    allows none, the block does nothing.

    Args:
        hurry: whether a second Ctrl-C ends the process.

    Attributes:
        received: number of the signal, or None.
    """

    def __init__(self, hurry: bool = True) -> None:
        self._hurry = hurry
        self.received: int | None = None
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """In the block a signal raises StopRequested: for waits that may take long.

        Raises:
            StopRequested: also at once, if a signal came before.
        """
        self._waiting = True
        try:
            if self.received is not None:
                raise StopRequested
            yield
        finally:
            self._waiting = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
        if number == signal.SIGINT and self._hurry:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._waiting:
            self._waiting = False
            raise StopRequested
